"""The command that shows where in a picture a network's evidence lies, and the inside of the network."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from toolkit.cli.output import print_json, print_table
from toolkit.errors import UserError, unknown_name

if TYPE_CHECKING:
    from toolkit.explain import Explainer, Explanation


def explain(arguments: Namespace) -> None:
    if arguments.show not in _SHOWING:
        raise UserError(unknown_name("kind to show", arguments.show, list(_SHOWING)))
    if arguments.image is None and arguments.show != "filters":
        raise UserError(f"--show {arguments.show} is of a picture; give one behind the network")
    if arguments.show != "map" and (arguments.classes or arguments.against or arguments.method != "auto"):
        raise UserError(f"--class, --against and --method are for --show map; leave them out of {arguments.show}")
    if arguments.stage and arguments.show in ("filters", "statistics"):
        raise UserError(f"--stage is for --show map and features; leave it out of {arguments.show}")
    if arguments.out and arguments.show == "statistics":
        raise UserError("--show statistics is a table; leave --out out")
    if arguments.out:
        from toolkit.files import require_place

        if arguments.out.suffix.lower() != ".png":
            raise UserError(f"cannot draw to {arguments.out.name!r}; give a file name that ends in .png")
        require_place(arguments.out)
    elif arguments.show in ("features", "filters"):
        raise UserError(f"--show {arguments.show} is a sheet of pictures; name a file by --out FILE.png")
    document = _SHOWING[arguments.show](arguments)
    if arguments.out:
        document |= {"path": str(arguments.out)}
    if arguments.json:
        print_json(document)
    elif arguments.out:
        print(f"drawn to {arguments.out}")


def _open(arguments: Namespace) -> "Explainer":
    from toolkit.explain import open_explainer

    preprocessing = None
    if arguments.preprocessing:
        from toolkit.factory.foreign import read_preprocessing

        preprocessing = read_preprocessing(arguments.preprocessing)
    return open_explainer(
        arguments.network, weights=arguments.weights, labels=arguments.labels, preprocessing=preprocessing
    )


def _explanation(arguments: Namespace) -> "Explanation":
    from toolkit.inference.images import image_source

    source = image_source(arguments.image)  # a mistyped path needs no network
    return _open(arguments).explain(source)


def _map(arguments: Namespace) -> dict[str, Any]:
    from toolkit.explain.explainer import check_method

    check_method(arguments.method, arguments.stage)  # before a network is opened
    explanation = _explanation(arguments)
    from toolkit.explain.words import as_document, describe

    options = {"method": arguments.method, "stage": arguments.stage, "against": arguments.against}
    heat_maps = [explanation.heat_map(label, **options) for label in arguments.classes or [None]]
    region = explanation.smallest_region()
    if arguments.out:
        from toolkit.explain.draw import draw_explanation

        draw_explanation(arguments.out, explanation, heat_maps, region)
    if not arguments.json:
        print("\n".join(describe(explanation, heat_maps, region)))
    return {"image": arguments.image} | as_document(explanation, heat_maps, region)


def _features(arguments: Namespace) -> dict[str, Any]:
    explanation = _explanation(arguments)
    from toolkit.explain.draw import draw_features
    from toolkit.explain.inside import feature_maps

    name, cells = feature_maps(explanation, arguments.stage)
    draw_features(arguments.out, name, cells)
    return {"image": arguments.image, "layer": name, "shape": list(cells.shape)}


def _filters(arguments: Namespace) -> dict[str, Any]:
    from toolkit.explain.draw import draw_filters
    from toolkit.explain.inside import first_filters

    name, filters = first_filters(_open(arguments))
    draw_filters(arguments.out, name, filters)
    return {"layer": name, "shape": list(filters.shape)}


def _statistics(arguments: Namespace) -> dict[str, Any]:
    explanation = _explanation(arguments)
    from toolkit.explain.inside import statistics

    rows = [vars(row) for row in statistics(explanation)]
    if not arguments.json:
        table = [
            [
                *(row["stage"], row["layer"], "×".join(map(str, row["shape"]))),
                *(f"{row[key]:.4g}" for key in ("mean", "deviation", "largest")),
                *(100 * row["zeros"], row["silent"]),
            ]
            for row in rows
        ]
        print_table(table, ["stage", "layer", "map", "mean", "deviation", "largest", "zeros %", "silent channels"])
    return {"image": arguments.image, "stages": rows}


_SHOWING = {"map": _map, "features": _features, "filters": _filters, "statistics": _statistics}
