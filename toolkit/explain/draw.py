"""Pictures of explanations, as PNG: heat over the picture as a person sees it, sheets of maps and of filters."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from toolkit.data.pixels.decode import luma
from toolkit.draw.labels import drawable
from toolkit.explain.explainer import Explanation, HeatMap
from toolkit.explain.inside import strongest
from toolkit.explain.regions import Box, Region
from toolkit.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours whose lightness rises with the value, in any kind of colour vision.
COLOURS = "inferno"

_SIDE = 900  # pixels of the longer side of a drawn picture
_LONGEST = 4  # times the shorter side, beyond which a picture is drawn squeezed
_STRENGTH = 0.7  # of the colours
_DIM = 0.45  # brightness of what the network does not see
_TILES, _COLUMNS = 64, 8
_PANEL = 4.2  # inches
_BARS = 5  # that there is room for, at least
_METHODS = {
    "evidence": "exact share of the classifier's lead",
    "grad-cam": "Grad-CAM",
    "hires-cam": "HiResCAM",
    "occlusion": "loss where covered",
}


def overlay(explanation: Explanation, heat_map: HeatMap, *, strength: float = _STRENGTH) -> np.ndarray:
    """Lay a heat map over the picture as it is, in its own shape; what the network did not see is dimmed.

    Args:
        explanation: of the picture.
        heat_map: of it.
        strength: of the colours, from 0, where the picture is left as it is, to 1.

    Returns:
        uint8 (height, width, 3), its longer side at most 900.
    """
    return _laid_over(*shown(explanation), heat_map, strength)


def heat_layer(heat_map: HeatMap, size: tuple[int, int]) -> np.ndarray:
    """Colour a heat map as a layer over a grey picture, at full strength: where there is no heat, half of that shows.

    Args:
        heat_map: of the picture.
        size: height and width of the part that the network saw, as it is drawn.

    Returns:
        uint8 (height, width, 4), red, green, blue and opacity.
    """
    heat = Image.fromarray(heat_map.heat.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
    values = np.clip(np.asarray(heat), 0, 1)
    opacity = np.rint(255 * (0.5 + 0.5 * values)).astype(np.uint8)
    return np.concatenate([coloured(values), opacity[..., None]], axis=-1)


def coloured(values: np.ndarray) -> np.ndarray:
    """Colour numbers 0…1 as heat: uint8 (height, width, 3)."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](values, bytes=True))[..., :3]


def draw_explanation(
    path: str | Path, explanation: Explanation, heat_maps: Sequence[HeatMap], region: Region | None, reason: str
) -> None:
    """Draw a picture, heat maps over it, the likeliest classes, and what each stage gave, to a PNG file.

    Args:
        path: where to.
        explanation: of the picture.
        heat_maps: of it, one or several.
        region: the smallest part that keeps the answer, to be outlined.
        reason: why the answer means "none of these", see ``Predictor.reason``; empty where it does not.

    Raises:
        UserError: the file cannot be written.
    """
    top = explanation.top()
    texts = [*(name for name, _ in top), *(heat.label for heat in heat_maps), *(heat.against for heat in heat_maps)]
    with drawable(texts, longest=28) as drawn:
        names = dict(zip(texts, drawn, strict=True))
        picture, seen = shown(explanation)
        height, width = picture.shape[:2]
        aspect = min(max(height / width, 1 / _LONGEST), _LONGEST)
        across = min(_PANEL, 1.4 * _PANEL / aspect)
        parts = [heat for heat in heat_maps if len(heat.by_stage) > 2]
        figure = _figure(across * (1 + len(heat_maps)) + 0.9 + 2.6 * (1 + len(parts)), max(2.6, across * aspect) + 0.7)
        widths = [across] * (1 + len(heat_maps)) + [2.6] * (1 + len(parts))
        axes = figure.subplots(1, len(widths), width_ratios=widths)
        is_whole = picture[seen.pixels(picture.shape)].shape == picture.shape
        _show(axes[0], _dimmed(picture, seen), "the picture" if is_whole else "bright: what the network saw", aspect)
        _outline(axes[0], seen, "white", "--")
        if region is not None:
            part = Box(0, 0, height, width).inner(region.box, explanation.rgb.shape[:2])
            _outline(axes[0], part, "#ffd166", "-")
            note = f"yellow: enough for {names[top[0][0]]}, {100 * region.probability:.0f} %"
            axes[0].set_xlabel(note, fontsize=8)
        for axis, heat in zip(axes[1:], heat_maps, strict=False):
            against = f" against {names[heat.against]}" if heat.against else ""
            _show(axis, _laid_over(picture, seen, heat), f"for {names[heat.label]}{against}", aspect)
            axis.set_xlabel(_METHODS[heat.method], fontsize=8)
            _outline(axis, seen, "white", "--")
        _legend(figure, axes[len(heat_maps)])
        charts = axes[1 + len(heat_maps) :]
        title = "none of these; probability, %" if reason else "probability, %"
        _bars(charts[0], [(names[name], 100 * p) for name, p in top], title)
        for axis, heat in zip(charts[1:], parts, strict=True):
            stages = [(name.removesuffix("_concat"), value) for name, value in heat.by_stage]
            _bars(axis, stages, f"for {names[heat.label]}, in logits")
        _save(figure, path)


def draw_features(path: str | Path, name: str, cells: np.ndarray) -> None:
    """Draw the strongest channels of a map as a sheet, each scaled to its own largest value, which stands above it.

    Args:
        path: a PNG file.
        name: of the layer.
        cells: (rows, columns, channels).

    Raises:
        UserError: the file cannot be written.
    """
    channels = strongest(cells, _TILES)
    titles = [f"{channel}: {cells[..., channel].max():.3g}" for channel in channels]
    count = f"{len(channels)} strongest of " if len(channels) < cells.shape[-1] else ""
    size = f"{cells.shape[1]}×{cells.shape[0]} cells"
    heading = f"{name}: {count}{cells.shape[-1]} channels of {size}, each scaled to its own largest value"
    _save(_sheet([cells[..., channel] for channel in channels], titles, heading), path)


def draw_filters(path: str | Path, name: str, filters: np.ndarray) -> None:
    """Draw filters as a sheet: grey is zero, and each is scaled by its own largest weight.

    Args:
        path: a PNG file.
        name: of the layer.
        filters: (filters, height, width, 1 or 3).

    Raises:
        UserError: the file cannot be written.
    """
    tiles = []
    for weights in filters[: 4 * _TILES]:
        scaled = 0.5 + 0.5 * weights / max(float(np.abs(weights).max()), 1e-12)
        tiles.append(np.broadcast_to(scaled, (*scaled.shape[:2], 3)))
    number = f"{len(tiles)} of {len(filters)}" if len(tiles) < len(filters) else f"{len(filters)}"
    height, width = filters.shape[1:3]
    _save(
        _sheet(
            tiles, [], f"{name}: {number} filters of {width}×{height}; grey is zero, each scaled by its largest weight"
        ),
        path,
    )


def shown(explanation: Explanation) -> tuple[np.ndarray, Box]:
    """Scale the picture to the size in which it is drawn, and find where in it lies what the network saw.

    Returns:
        uint8 (height, width, 3), its longer side at most 900, and the part that the network saw in pixels of it.
    """
    height, width = explanation.rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    if max(height, width) < _SIDE // 3:  # small ones are enlarged, pixel by pixel
        scale = _SIDE // 3 // max(height, width) + 1
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kind = Image.Resampling.BOX if scale > 1 else Image.Resampling.LANCZOS
    picture = np.asarray(Image.fromarray(np.ascontiguousarray(explanation.rgb)).resize(size, kind))
    return picture, Box(0, 0, *picture.shape[:2]).inner(explanation.seen, (height, width))


def _dimmed(picture: np.ndarray, seen: Box) -> np.ndarray:
    """Dim a picture, but for the part that the network saw."""
    window = seen.pixels(picture.shape)
    drawn = (picture * _DIM).astype(np.uint8)
    drawn[window] = picture[window]
    return drawn


def _laid_over(picture: np.ndarray, seen: Box, heat_map: HeatMap, strength: float = _STRENGTH) -> np.ndarray:
    """Dim what the network did not see of a picture, and colour what it saw."""
    window = seen.pixels(picture.shape)
    part = picture[window]
    layer = heat_layer(heat_map, part.shape[:2]).astype(np.float32)
    # Grey under the colours, so that none of them is the picture's own.
    greyness = min(1.0, 2 * strength)
    ground = (1 - greyness) * part + greyness * luma(part)
    opacity = strength * layer[..., 3:] / 255
    drawn = _dimmed(picture, seen)
    drawn[window] = np.clip((1 - opacity) * ground + opacity * layer[..., :3], 0, 255).round().astype(np.uint8)
    return drawn


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: str | Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, format="png", bbox_inches="tight", pad_inches=0.1)


def _show(axis: Any, picture: np.ndarray, title: str, aspect: float) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, aspect=aspect * width / height)
    axis.set_title(title, fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])


def _outline(axis: Any, box: Box, colour: str, style: str) -> None:
    from matplotlib.patches import Rectangle

    for ink, width in (("black", 3.0), (colour, 1.5)):  # seen on light and on dark
        corner = box.left - 0.5, box.top - 0.5
        line = "-" if ink == "black" else style
        axis.add_patch(
            Rectangle(corner, box.width, box.height, fill=False, edgecolor=ink, linewidth=width, linestyle=line)
        )


def _legend(figure: "Figure", axis: Any) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=axis, fraction=0.05, pad=0.02)
    bar.set_ticks([0, 0.5, 1], labels=["none", "half", "most"])
    bar.ax.tick_params(labelsize=8)


def _bars(axis: Any, rows: Sequence[tuple[str, float]], title: str) -> None:
    names, values = zip(*rows, strict=True)
    colours = ["#31688e" if value >= 0 else "#b5653a" for value in values]
    places = range(len(names))
    axis.barh(places, values, color=colours)
    axis.set_ylim(max(len(names), _BARS) - 0.5, -0.5)  # downwards, and two bars no thicker than five
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(places, names, fontsize=8)
    axis.set_xticks([])  # each bar has its value beside it
    axis.set_title(title, fontsize=10)
    low, high = min(0.0, *values), max(0.0, *values)
    axis.set_xlim(low - 0.3 * (high - low) * (low < 0), high + 0.3 * (high - low))
    for place, value in zip(places, values, strict=True):
        axis.text(value, place, f" {value:.1f} ", va="center", ha="left" if value >= 0 else "right", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _sheet(tiles: Sequence[np.ndarray], titles: Sequence[str], heading: str) -> "Figure":
    columns = min(len(tiles), max(_COLUMNS, math.ceil(math.sqrt(len(tiles)))))
    rows = math.ceil(len(tiles) / columns)
    side = 1.2 if titles else 0.8
    figure = _figure(max(side * columns, 6), (side + 0.15 * bool(titles)) * rows + 0.5)
    figure.suptitle(heading, fontsize=10)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, tile in zip(axes, tiles, strict=False):
        axis.imshow(tile, cmap=COLOURS, interpolation="nearest")
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=7, pad=2)
    return figure
