"""Layer tables and drawings of all networks, worked out beforehand: building ResNet-152 to show it takes seconds.

``python -m toolkit.demo.networks.tables`` writes them anew; tests hold them to the networks.
"""

import functools
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from toolkit.arithmetic import LayerRow
from toolkit.draw.blocks import Box
from toolkit.errors import UserError, unknown_name

_FILE = Path(__file__).with_name("tables.jsonl")


@dataclass(frozen=True)
class Tables:
    """A network as it is built by default: its layers with their figures, and the boxes that it is drawn with."""

    rows: tuple[LayerRow, ...]
    boxes: tuple[Box, ...]


def tables(name: str) -> Tables:
    """Take a network's tables.

    Raises:
        UserError: no such network.
    """
    lines = _lines()
    if name not in lines:
        raise UserError(unknown_name("model", name, list(lines), listing="run `toolkit models` for the list"))
    return _parse(json.loads(lines[name]))


def work_out(name: str) -> dict[str, Any]:
    """Build a network, without weights, and tabulate it: JSON-ready, as the file holds it."""
    from toolkit.arithmetic import layer_table
    from toolkit.draw.blocks import boxes
    from toolkit.factory import create_model
    from toolkit.lazy import keras

    with keras.StatelessScope():  # no memory is taken for weights
        model = create_model(name)
    return {
        "name": name,
        "rows": [list(asdict(row).values()) for row in layer_table(model)],
        "boxes": [asdict(box) for box in boxes(model)],
    }


def write() -> None:
    """Write the tables of all networks, one a line."""
    from toolkit.catalogue import list_models
    from toolkit.files import replacing
    from toolkit.progress import track

    names = list_models()
    with replacing(_FILE) as partial:
        lines = [_compact(work_out(name)) for name in track(names, "working out tables")]
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


@functools.cache
def _lines() -> dict[str, str]:
    """The lines of the file by the network's name, which each begins with."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return {line.split('"', 4)[3]: line for line in lines}


def _parse(document: dict[str, Any]) -> Tables:
    names = [field.name for field in fields(LayerRow)]
    rows = [_made_whole(dict(zip(names, row, strict=True))) for row in document["rows"]]
    return Tables(tuple(LayerRow(**row) for row in rows), tuple(Box(**_made_whole(box)) for box in document["boxes"]))


def _made_whole(values: dict[str, Any]) -> dict[str, Any]:
    """Make tuples of what JSON has lists for."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


if __name__ == "__main__":
    write()
