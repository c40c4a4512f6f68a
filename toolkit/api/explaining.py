"""The call that shows where in a picture a network's evidence lies, and the inside of the network."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.calls import call
from toolkit.api.results import Result
from toolkit.errors import UserError, unknown_name

if TYPE_CHECKING:
    from toolkit.explain import Explainer, Explanation
    from toolkit.spec import Preprocessing


class Explained(Result):
    """An explanation, see ``toolkit.explain``.

    Attributes:
        words: what it comes to, in lines.
        picture: the PNG that was drawn; None if none was.
    """

    words: tuple[str, ...] = ()
    picture: Path | None = None

    def _title(self) -> str:
        return str(self.get("image") or self.get("layer") or "explanation")

    def _lines(self) -> list[str]:
        return list(self.words) or [f"drawn to {self.picture}"]

    def _body(self) -> str:
        import html

        from toolkit.report.page import picture

        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.words)
        return said + ("" if self.picture is None else picture("Drawn", self.picture.read_bytes()))


@call
def explain(
    network: str | os.PathLike[str],
    image: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    classes: Sequence[str] = (),
    against: str | None = None,
    method: str = "auto",
    stage: str | None = None,
    show: str = "map",
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    preprocessing: "str | Preprocessing | None" = None,
) -> Explained:
    """Show where in a picture the evidence for a class lies, and what a network saw.

    Args:
        network: a bundle, a network (see ``toolkit.list_models``), or a ``.keras`` file of one.
        image: a picture; filters need none.
        out: draw it to this PNG file; otherwise it is said in words only.
        classes: explain these classes, by name or number; by default the likeliest.
        against: hold them against this class; by default all others.
        method: ``"evidence"``, ``"grad-cam"``, ``"hires-cam"`` or ``"occlusion"``; ``"auto"`` is exact where the
            classifier allows it.
        stage: whose map to look at, or a layer.
        show: ``"map"``, ``"features"`` of a stage, ``"filters"`` of the first layer, or ``"statistics"``.
        weights: of a network by name: a tag, by default imagenet, a file, a run or a bundle.
        labels: file of class names, one a line; a bundle has its own.
        preprocessing: of the network in a ``.keras`` file, see ``toolkit.finetune``.

    Returns:
        What the command prints with ``--json``; ``result.words`` says it in lines. ``"rejected"`` tells that a bundle's
        answer means "none of these", and ``"reason"`` why, see ``toolkit.Predictor.reason``.

    Raises:
        UserError: no such network or picture, or options that do not go together.
    """
    asked = _Asked(network, image, None if out is None else Path(out), tuple(classes), against, method, stage)
    if show not in _SHOWING:
        raise UserError(unknown_name("kind to show", show, list(_SHOWING)))
    _require_sense(asked, show)
    if asked.out:
        from toolkit.files import require_place

        if asked.out.suffix.lower() != ".png":
            raise UserError(f"cannot draw to {asked.out.name!r}; give a file name that ends in .png")
        require_place(asked.out)
    elif show in ("features", "filters"):
        raise UserError(f"--show {show} is a sheet of pictures; name a file by --out FILE.png")

    def open_network() -> "Explainer":
        from toolkit.explain import open_explainer
        from toolkit.factory.foreign import read_preprocessing

        read = read_preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing
        own = None if labels is None else Path(labels)
        return open_explainer(os.fspath(network), weights=weights, labels=own, preprocessing=read)

    document, words = _SHOWING[show](asked, open_network)
    result = Explained(document | ({"path": str(asked.out)} if asked.out else {}))
    result.words, result.picture = tuple(words), asked.out
    return result


@dataclass(frozen=True)
class _Asked:
    """Options of an explanation, see ``explain``."""

    network: Any
    image: Any
    out: Path | None
    classes: tuple[str, ...]
    against: str | None
    method: str
    stage: str | None


def _require_sense(asked: _Asked, show: str) -> None:
    if asked.image is None and show != "filters":
        raise UserError(f"--show {show} is of a picture; give one behind the network")
    if show != "map" and (asked.classes or asked.against or asked.method != "auto"):
        raise UserError(f"--class, --against and --method are for --show map; leave them out of {show}")
    if asked.stage and show in ("filters", "statistics"):
        raise UserError(f"--stage is for --show map and features; leave it out of {show}")
    if asked.out and show == "statistics":
        raise UserError("--show statistics is a table; leave --out out")


_Open = Callable[[], "Explainer"]
_Found = tuple[dict[str, Any], Sequence[str]]


def _explanation(asked: _Asked, open_network: _Open) -> "Explanation":
    from toolkit.data.pixels.decode import read_rgb
    from toolkit.explain.opening import require_source
    from toolkit.inference.images import image_source

    require_source(os.fspath(asked.network))
    source = image_source(asked.image)
    read_rgb(source)  # what cannot be read needs no network
    return open_network().explain(source)


def _map(asked: _Asked, open_network: _Open) -> _Found:
    from toolkit.explain.explainer import check_method

    check_method(asked.method, asked.stage)  # before a network is opened
    explanation = _explanation(asked, open_network)
    from toolkit.explain.words import as_document, describe
    from toolkit.inference.refusal import reason_of

    reason = reason_of(explanation)
    labels = asked.classes or (None,)
    heat_maps = [
        explanation.heat_map(label, method=asked.method, stage=asked.stage, against=asked.against) for label in labels
    ]
    region = explanation.smallest_region()
    if asked.out:
        from toolkit.explain.draw import draw_explanation

        draw_explanation(asked.out, explanation, heat_maps, region, reason)
    found = (explanation, heat_maps, region, reason)
    return {"image": _name(asked.image)} | as_document(*found), describe(*found)


def _features(asked: _Asked, open_network: _Open) -> _Found:
    explanation = _explanation(asked, open_network)
    from toolkit.explain.draw import draw_features
    from toolkit.explain.inside import feature_maps

    name, cells = feature_maps(explanation, asked.stage)
    assert asked.out is not None
    draw_features(asked.out, name, cells)
    return {"image": _name(asked.image), "layer": name, "shape": list(cells.shape)}, ()


def _filters(asked: _Asked, open_network: _Open) -> _Found:
    from toolkit.explain.draw import draw_filters
    from toolkit.explain.inside import first_filters

    name, filters = first_filters(open_network())
    assert asked.out is not None
    draw_filters(asked.out, name, filters)
    return {"layer": name, "shape": list(filters.shape)}, ()


def _statistics(asked: _Asked, open_network: _Open) -> _Found:
    explanation = _explanation(asked, open_network)
    from toolkit.explain.inside import statistics

    rows = [vars(row) for row in statistics(explanation)]
    words = [f"{row['layer']}: mean {row['mean']:.4g}, zeros {100 * row['zeros']:.1f} %" for row in rows]
    return {"image": _name(asked.image), "stages": rows}, words


def _name(image: Any) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else type(image).__name__


_SHOWING: dict[str, Callable[[_Asked, _Open], _Found]] = {
    "map": _map,
    "features": _features,
    "filters": _filters,
    "statistics": _statistics,
}
