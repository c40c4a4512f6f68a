"""The markup of tab Look inside: heat over a picture, evidence by stage, sheets of maps and filters."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from toolkit.demo.encoding import image_url
from toolkit.demo.inside.looks import Look, Sheet
from toolkit.demo.markup.parts import escape, percent, sides
from toolkit.draw.filters import FILTERS
from toolkit.explain import Box, Explainer, HeatMap
from toolkit.explain.draw import coloured, heat_layer, shown
from toolkit.explain.inside import Statistics
from toolkit.explain.words import HOW, describe_heat

#: Said with every explanation.
ORIGINAL = (
    "Explained is the bundle’s original network in float32, never a quantized file: that has no gradients, and "
    "answers slightly differently."
)
_HEAT_SIDE, _TILE_SIDE, _EDGE_SIDE = 448, 64, 420  # pixels sent at most
_CODED_WHOLE = 144  # pictures up to this side keep every pixel on their way
_FILTER_WORDS = {
    "vertical": "Vertical edges",
    "horizontal": "Horizontal edges",
    "sobel": "Sobel",
    "scharr": "Scharr",
    "quiz": "The quiz’s 4×4",
}
#: Of the notes' worked example of edge detection, shown until there is a picture.
NOTES_PICTURE = (
    (3, 0, 1, 2, 7, 4),
    (1, 5, 8, 9, 3, 1),
    (2, 7, 2, 5, 1, 3),
    (0, 1, 3, 1, 7, 8),
    (4, 2, 1, 6, 2, 8),
    (2, 4, 5, 2, 3, 9),
)


def waiting(what: str) -> str:
    """Write a panel that waits for a picture."""
    return f'<section class="tk-card tk-waiting" data-state="empty"><p class="tk-top">{escape(what)}</p></section>'


def heat_view(look: Look, heat: HeatMap, evidence: Sequence[HeatMap]) -> str:
    """Write the picture under its heat map, with a slider, and what each stage gave of the likeliest classes' lead."""
    explanation = look.explanation
    picture, seen = shown(explanation)
    part = picture[seen.pixels(picture.shape)]
    scale = min(1.0, _HEAT_SIDE / max(part.shape[:2]))
    layer = heat_layer(heat, (max(1, round(part.shape[0] * scale)), max(1, round(part.shape[1] * scale))))
    words = describe_heat(heat)
    image = f'<img class="tk-heat" src="{picture_url(layer)}" alt="Heat: {escape(words)}">'
    return f"""<section class="tk-look" data-state="map">
{_lens(picture, seen, image, kind="tk-greyed", above=_outline(look))}
<div class="tk-strength"><label>Strength <input type="range" min="0" max="100" value="70" aria-label="Strength of the \
heat map"></label><span class="tk-ramp" aria-hidden="true"><i>none</i><b></b><i>most</i></span></div>
<p class="tk-where">{escape(words[:1].upper() + words[1:])} <span class="tk-how">({escape(HOW[heat.method])})</span></p>
{_turned(look)}{_enough(look)}<p class="tk-note">{ORIGINAL}</p>
{_classes(explanation.top(), heat.label)}
{_evidence(evidence, heat.label)}
</section>"""


def _outline(look: Look) -> str:
    """Outline the smallest part that keeps the answer, where that was found."""
    if look.region is None:
        return ""
    return f'<div class="tk-region" style="{_place(look.region.box, look.explanation.rgb.shape)}"></div>'


def _enough(look: Look) -> str:
    label, region = look.explanation.label, look.region
    if not look.is_searched:
        words = f"How little of it is enough for {label}?"
        return f'<p><button type="button" class="tk-search" data-search>{escape(words)}</button></p>'
    if region is None:
        return f'<p class="tk-where">No smaller part of what was seen keeps the answer {escape(label)}.</p>'
    words = f"Outlined: {100 * region.share:.0f} % of what was seen is enough for {label}"
    return f'<p class="tk-where">{escape(words)}, {percent(region.probability)} by itself.</p>'


def _classes(top: Sequence[tuple[str, float]], chosen: str) -> str:
    rows = "".join(
        f'<button type="button" class="tk-class" data-label="{escape(label)}" aria-pressed="{_true(label == chosen)}">'
        f'<span class="tk-name">{escape(label)}</span><span class="tk-track" aria-hidden="true">'
        f'<span style="width:{100 * share:.2f}%"></span></span><span class="tk-share">{percent(share)}</span></button>'
        for label, share in top
    )
    return f'<p class="tk-eyebrow">It answers; choose whose evidence is shown</p><div class="tk-classes">{rows}</div>'


def _evidence(heats: Sequence[HeatMap], chosen: str) -> str:
    if not heats:
        return (
            '<p class="tk-note">This network’s classifier has hidden layers, so that its lead cannot be split exactly '
            "among stages.</p>"
        )
    names = [name for name, _ in heats[0].by_stage]
    largest = max(abs(value) for heat in heats for _, value in heat.by_stage) or 1.0
    header = "".join(f"<th>{escape(name.removesuffix('_concat'))}</th>" for name in names)
    rows = ""
    for heat in heats:
        cells = "".join(_signed(value, largest) for _, value in heat.by_stage)
        lead = sum(value for _, value in heat.by_stage)
        head = f"<tr{_chosen(heat.label == chosen)}><th>{escape(heat.label)}</th>"
        rows += f"{head}{cells}<td class='tk-lead'>{_number(lead)}</td></tr>"
    return f"""<p class="tk-eyebrow">Which stages spoke: each class’s lead over the others, in logits, split exactly</p>
<div class="tk-scroll"><table class="tk-evidence"><thead><tr><th></th>{header}<th>lead</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _signed(value: float, largest: float) -> str:
    kind = "for" if value >= 0 else "against"
    return f'<td class="tk-{kind}" style="--share:{100 * abs(value) / largest:.0f}%">{_number(value)}</td>'


def features_view(look: Look, sheet: Sheet, statistics: Sequence[Statistics]) -> str:
    """Write a stage's maps as a sheet, and what all stages' activations are like."""
    rows, columns, channels = sheet.shape
    strongest = f"the {len(sheet.channels)} strongest of " if len(sheet.channels) < channels else ""
    tiles = "".join(
        _tile(_map_url(sheet.cells[..., index]), f"{channel}", _figure(float(sheet.cells[..., index].max())))
        for index, channel in enumerate(sheet.channels)
    )
    table = "".join(
        f"<tr{_chosen(one.layer == sheet.layer)}><th>{escape(one.stage)}</th><td>{sides(one.shape)}</td>"
        f"<td>{_figure(one.mean)}</td><td>{_figure(one.largest)}</td><td>{100 * one.zeros:.0f} %</td>"
        f"<td>{one.silent}</td></tr>"
        for one in statistics
    )
    return f"""<section class="tk-features" data-state="features">
<p class="tk-where"><b>{escape(sheet.layer)}</b>: {strongest}{channels} channels of {columns}×{rows} cells. Each is \
scaled by itself; below it stand its number and its largest value.</p>
<div class="tk-sheet">{tiles}</div>{_turned(look)}
<p class="tk-eyebrow">The stages’ activations for this picture</p>
<div class="tk-scroll"><table class="tk-numbers"><thead><tr><th>stage</th><th>shape</th><th>mean</th><th>largest</th>\
<th>zero</th><th>silent channels</th></tr></thead><tbody>{table}</tbody></table></div>
<p class="tk-note">{ORIGINAL}</p></section>"""


def filters_view(name: str, count: int, filters: np.ndarray) -> str:
    """Write the first layer's filters as a sheet; grey is zero."""
    tiles = []
    for weights in filters:
        grey = np.rint(127.5 + 127.5 * weights / max(float(np.abs(weights).max()), 1e-12)).astype(np.uint8)
        tiles.append(_tile(picture_url(np.broadcast_to(grey, (*grey.shape[:2], 3))), "", ""))
    shown_of = f"{len(filters)} of {count}" if len(filters) < count else f"{count}"
    height, width = filters.shape[1:3]
    return f"""<section class="tk-features"><p class="tk-eyebrow">What it looks for first</p>
<p class="tk-where"><b>{escape(name)}</b>: {shown_of} filters of {width}×{height} pixels. Grey is zero; each is scaled \
by its largest weight.</p><div class="tk-sheet tk-small">{"".join(tiles)}</div></section>"""


def edges_view(rgb: np.ndarray | None = None) -> str:
    """Write the place where filters are applied to a picture in the browser: to the notes' 6×6 numbers without one."""
    if rgb is None:
        source = f'data-numbers="{_rows(NOTES_PICTURE)}"'
        about = "These are the notes’ 6×6 numbers; bring a picture to see its edges."
    else:
        image = Image.fromarray(rgb)
        image.thumbnail((_EDGE_SIDE, _EDGE_SIDE))
        source = f'data-picture="{picture_url(np.asarray(image))}"'
        about = "The picture in grey: each pixel is a number from 0 for black to 255 for white."
    chosen = "vertical"
    buttons = "".join(
        f'<button type="button" data-filter="{name}" data-kernel="{_rows(kernel)}" '
        f'aria-pressed="{_true(name == chosen)}">{_FILTER_WORDS.get(name, name)}</button>'
        for name, kernel in FILTERS.items()
    )
    return f"""<section class="tk-edges" data-state="edges" {source}>
<div class="tk-choices" role="group" aria-label="Filter">{buttons}<button type="button" data-filter="own" \
aria-pressed="false">Your own</button></div>
<div class="tk-bench"><div class="tk-kernel" role="group" aria-label="The filter’s numbers"></div>
<p class="tk-sum" aria-live="off">Point at the picture: the sum of products at that place is worked out here.</p></div>
<p class="tk-problem-line" role="alert" hidden></p>
<div class="tk-pair"><figure><canvas class="tk-from" role="img" aria-label="The picture in grey"></canvas>
<figcaption>{about}</figcaption></figure>
<figure><canvas class="tk-to" role="img" aria-label="What the filter answers"></canvas>
<figcaption></figcaption></figure></div></section>"""


def picture_url(pixels: np.ndarray) -> str:
    """Make a data URL of uint8 (height, width, 3 or 4); small ones keep every pixel."""
    kind = "png" if max(pixels.shape[:2]) <= _CODED_WHOLE else "webp"
    return image_url(Image.fromarray(np.ascontiguousarray(pixels)), kind, quality=88)


def lens(look: Look, inner: str) -> str:
    """Write the picture with what the network saw of it in light, and ``inner`` laid over that part."""
    return _lens(*shown(look.explanation), inner)


def stage_choices(explainer: Explainer) -> list[str]:
    """List the stages whose maps can be shown, the last one first."""
    return list(reversed(explainer.maps))


def _lens(picture: np.ndarray, seen: Box, inner: str, *, kind: str = "", above: str = "") -> str:
    height, width = picture.shape[:2]
    return (
        f'<div class="tk-lens {kind}" style="--aspect:{width / height:.4f}">'
        f'<img class="tk-ground" src="{picture_url(picture)}" alt="The picture">'
        f'<div class="tk-seen" style="{_place(seen, picture.shape)}">{inner}</div>{above}</div>'
    )


def _place(box: Box, shape: tuple[int, ...]) -> str:
    """Place a box of a picture of ``shape`` over it, as CSS."""
    height, width = shape[:2]
    sides = {"left": box.left / width, "top": box.top / height}
    sides |= {"width": box.width / width, "height": box.height / height}
    return ";".join(f"{side}:{100 * share:.3f}%" for side, share in sides.items())


def _turned(look: Look) -> str:
    if not look.turned:
        return ""
    return (
        '<p class="tk-note">Light and dark are exchanged: the network learned from pictures the other way round, and '
        "was shown this.</p>"
    )


def _tile(url: str, name: str, value: str) -> str:
    caption = f"<figcaption><b>{name}</b> {value}</figcaption>" if name else ""
    return f'<figure><img src="{url}" alt="{f"channel {name}" if name else "filter"}">{caption}</figure>'


def _map_url(cells: np.ndarray) -> str:
    low, high = float(cells.min()), float(cells.max())
    image = Image.fromarray(((cells - low) / max(high - low, 1e-12)).astype(np.float32))
    image.thumbnail((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BOX)
    return picture_url(coloured(np.clip(np.asarray(image), 0, 1)))


def _rows(numbers: Sequence[Sequence[int]]) -> str:
    return ";".join(",".join(map(str, row)) for row in numbers)


def _true(value: bool) -> str:
    return "true" if value else "false"


def _chosen(is_chosen: bool) -> str:
    return ' class="tk-chosen-row"' if is_chosen else ""


def _figure(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "−")


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
