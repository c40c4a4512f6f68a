"""Drawings of networks as SVG to stand in a page, in the page's own colours, light or dark."""

import functools
import re
from xml.etree import ElementTree

from toolkit.demo.networks.tables import tables
from toolkit.draw.picture import BAND, BAND_EDGE, EDGES, FAINT, FILLS, INK, draw_boxes
from toolkit.files import scratch_folder

_SVG = "http://www.w3.org/2000/svg"
#: Colours of the drawing, by the page's names for them.
_COLOURS = {
    INK: "--tk-ink",
    FAINT: "--tk-faint",
    BAND: "--tk-band",
    BAND_EDGE: "--tk-band-edge",
    "#ffffff": "--tk-paper",
    **{colour: f"--tk-{kind}" for kind, colour in FILLS.items()},
    **{colour: f"--tk-{kind}-edge" for kind, colour in EDGES.items()},
}


@functools.lru_cache(maxsize=64)
def drawing(name: str, title: str) -> str:
    """Draw a network by name, as SVG whose colours are the page's variables ``--tk-ink`` and so on.

    Raises:
        UserError: no such network.
    """
    with scratch_folder("toolkit-drawing-") as folder:
        path = folder / "network.svg"
        draw_boxes(list(tables(name).boxes), path, title=title)
        text = path.read_text(encoding="utf-8")
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in list(parent):
            # A style sheet in a page is the whole page's.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    root.set("class", "tk-drawing-of-network")
    root.set("role", "img")
    root.set("style", f"--least:{root.get('width')}")
    root.set("aria-label", f"Drawing of {title}")
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"#[0-9a-f]{6}", lambda match: _variable(match[0]), text)


def _variable(colour: str) -> str:
    return f"var({_COLOURS[colour]})" if colour in _COLOURS else colour
