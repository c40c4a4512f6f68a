"""A page about a fine-tuning: what each step came to, and the data set as its features show it."""

import base64
import colorsys
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from toolkit.data.pixels.decode import read_rgb
from toolkit.files import write_file
from toolkit.transfer.insight import Doubt, label_doubts, map_of, near_duplicates

if TYPE_CHECKING:
    from toolkit.transfer.finetune import Step

_MAP_WIDTH, _MAP_HEIGHT = 900, 640
_THUMBNAIL = 112
_SHOWN = 40

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
td, th { padding: .1rem 1.5rem .1rem 0; text-align: left; font-weight: normal } th { color: #777 }
figure { display: inline-block; margin: .3rem; width: 15.5rem; vertical-align: top; font-size: .8rem }
figure img { height: 7rem; margin-right: .2rem } svg { width: 100%; border: 1px solid #ddd }
.class { display: inline-block; margin-right: 1rem } .class i { display: inline-block; width: .8em; height: .8em }
"""


def write_report(
    path: str | Path,
    *,
    pictures: Sequence[str | Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    features: np.ndarray,
    steps: Sequence["Step"] = (),
) -> dict[str, int]:
    """Write one HTML file that holds everything it shows: a map, near duplicates, labels to look at again.

    Args:
        path: of the file; replaced if there is one.
        pictures: files.
        labels: integer class per picture.
        class_names: in label order.
        features: (pictures, features), pooled.
        steps: of the fine-tuning, to show what each came to.

    Returns:
        ``{"near_duplicates", "label_doubts", "pictures"}``, how many there are of each.

    Raises:
        UserError: the file cannot be written.
    """
    duplicates = near_duplicates(features)
    doubts = label_doubts(features, labels)
    title = f"{len(pictures):,} pictures in {len(class_names)} classes"
    body = [
        f"<h1>{title}</h1>",
        *_steps(steps),
        "<h2>Map</h2><p>Pictures with like features lie together; a dot tells its file when pointed at.</p>",
        _map(pictures, labels, class_names, features),
        f"<h2>Near duplicates: {len(duplicates)}</h2>",
        f"<p>Copies on both sides of a split make accuracy look better.{_shown(duplicates)}</p>",
        *(_pair(pictures, class_names, labels, pair) for pair in duplicates[:_SHOWN]),
        f"<h2>Labels to look at again: {len(doubts)}</h2>",
        f"<p>Classifiers that never saw them say otherwise, the surest first.{_shown(doubts)}</p>",
        *(_doubt(pictures, class_names, doubt) for doubt in doubts[:_SHOWN]),
    ]
    document = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>\n" + "\n".join(body)
    write_file(path, document)
    return {"near_duplicates": len(duplicates), "label_doubts": len(doubts), "pictures": len(pictures)}


def _steps(steps: Sequence["Step"]) -> list[str]:
    if not steps:
        return []
    rows = [
        f"<tr><td>{html.escape(step.name)}<td>{100 * step.val_accuracy:.2f} %<td>{'kept' if step.kept else ''}"
        for step in steps
    ]
    return ["<h2>Training</h2><table><tr><th>step<th>right on validation<th>", *rows, "</table>"]


def _shown(found: Sequence[object]) -> str:
    return f" The first {_SHOWN} are shown." if len(found) > _SHOWN else ""


def _map(
    pictures: Sequence[str | Path], labels: Sequence[int], class_names: Sequence[str], features: np.ndarray
) -> str:
    drawn, points = map_of(features)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-9) * (_MAP_WIDTH - 20, _MAP_HEIGHT - 20) + 10
    colours = [_colour(index, len(class_names)) for index in range(len(class_names))]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[labels[index]]}" fill-opacity=".7">'
        f"<title>{html.escape(class_names[labels[index]])}: {html.escape(str(pictures[index]))}</title></circle>"
        for index, (x, y) in zip(drawn, scaled, strict=True)
    ]
    legend = [
        f'<span class=class><i style="background:{colour}"></i> {html.escape(name)}</span>'
        for colour, name in zip(colours, class_names, strict=True)
    ]
    return f'<p>{"".join(legend)}</p><svg viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}">{"".join(dots)}</svg>'


def _pair(
    pictures: Sequence[str | Path], class_names: Sequence[str], labels: Sequence[int], pair: tuple[int, int, float]
) -> str:
    first, second, cosine = pair
    names = " and ".join(f"{class_names[labels[index]]}/{Path(pictures[index]).name}" for index in (first, second))
    return _figure([pictures[first], pictures[second]], f"{names}, cosine {cosine:.3f}")


def _doubt(pictures: Sequence[str | Path], class_names: Sequence[str], doubt: Doubt) -> str:
    given, suggested = class_names[doubt.given], class_names[doubt.suggested]
    name = Path(pictures[doubt.index]).name
    return _figure([pictures[doubt.index]], f"{name}: {given}; rather {suggested}, more probable by {doubt.margin:.2f}")


def _figure(pictures: Sequence[str | Path], caption: str) -> str:
    images = "".join(f'<img alt="" src="{_thumbnail(picture)}">' for picture in pictures)
    return f"<figure>{images}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _thumbnail(picture: str | Path) -> str:
    image = Image.fromarray(read_rgb(picture))
    image.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _colour(index: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(index / max(count, 1), 0.45, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
