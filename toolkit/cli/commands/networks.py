"""Commands on networks, their weights and bundled samples."""

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from toolkit.cli.output import print_json, print_table
from toolkit.errors import UserError


def models(arguments: Namespace) -> None:
    from toolkit.catalogue import list_models, model_info

    if arguments.filters:
        return _draw_filters(arguments)
    if arguments.name:
        return _layer_table(arguments)
    if arguments.draw:
        raise UserError("--draw draws one network: give its name, as in `toolkit models resnet50 --draw resnet50.svg`")
    infos = [model_info(name) for name in list_models()]
    if arguments.json:
        fields = "name title year input_shape num_params macs stages weights deviations paper"
        rows = [{field: getattr(info, field) for field in fields.split()} for info in infos]
        return print_json([row | {"weights": sorted(row["weights"])} for row in rows])
    table = [[i.name, i.title, str(i.year), "×".join(map(str, i.input_shape)), i.num_params, i.macs] for i in infos]
    return print_table(table, ["name", "network", "year", "input", "parameters", "multiply-adds"])


def _draw_filters(arguments: Namespace) -> None:
    from toolkit.draw import draw_filters

    if arguments.name:
        raise UserError(f"--filters draws filters of no network: leave out {arguments.name}")
    draw_filters(arguments.filters)
    return print_json({"path": str(arguments.filters)}) if arguments.json else print(f"Drawn to {arguments.filters}")


def _layer_table(arguments: Namespace) -> None:
    from toolkit.arithmetic import format_table, layer_table, summary
    from toolkit.catalogue import model_info
    from toolkit.draw import check_path, draw_model
    from toolkit.factory import create_model

    info = model_info(arguments.name)
    if arguments.draw:
        check_path(arguments.draw)
    model = create_model(info.name)
    rows = layer_table(model)
    if arguments.draw:
        draw_model(model, arguments.draw, title=info.title)
    if arguments.json:
        return print_json([asdict(row) for row in rows])
    print(f"{info.title}: {info.paper}\n")
    print(format_table(rows))
    print(f"\n{summary(rows)}\n")
    for deviation in info.deviations:
        print(f"Differs from the paper: {deviation}")
    if arguments.draw:
        print(f"Drawn to {arguments.draw}")
    return None


def weights(arguments: Namespace) -> None:
    from toolkit.workflows import weights as journeys

    if arguments.action == "list":
        rows = journeys.list_weights(arguments.model)
        if arguments.json:
            return print_json(rows)
        return _print_weights(rows, arguments.model)
    if arguments.action == "download":
        path = journeys.download_weights(arguments.model, arguments.tag)
        return print_json({"path": str(path)}) if arguments.json else print(path)
    if arguments.action == "verify":
        report = journeys.verify_weights(arguments.model, arguments.weights)
        if arguments.json:
            return print_json(report)
        checked = report["digest"] or "no digest published"
        return print(f"{report['path']}: {report['num_tensors']:,} tensors fit {arguments.model} ({checked})")
    report = journeys.convert_weights(arguments.source, arguments.target, arguments.model, deeper=arguments.deepen)
    return print_json(report) if arguments.json else print(report["path"])


def _print_weights(rows: list[dict[str, Any]], name: str | None) -> None:
    from toolkit.catalogue import model_info

    if name and not rows:
        return print(f"{name}: {model_info(name).weights_note}")
    best = {(row["name"], row["stands_for"]) for row in rows if row["tag"] != row["stands_for"]}
    table = []
    for row in rows:
        if row["tag"] == row["stands_for"]:
            default = "default" if (row["name"], row["tag"]) in best else ""
            accuracies = _percent(row["top1"]), _percent(row["top5"])
            here = "yes" if row["cached"] else "no"
            table.append([row["name"], row["tag"], default, *accuracies, row["published_in"], row["licence"], here])
    return print_table(table, ["network", "tag", "", "top-1 %", "top-5 %", "published in", "licence", "here"])


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def samples(arguments: Namespace) -> None:
    from toolkit.data.sources.samples import write_samples

    count = write_samples(arguments.name, arguments.directory)
    if arguments.json:
        return print_json({"path": str(arguments.directory), "n": count})
    return print(f"{count:,} pictures written to {arguments.directory}")
