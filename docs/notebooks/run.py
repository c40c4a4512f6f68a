"""Run the notebooks and keep what their cells show: ``python docs/notebooks/run.py [NAME …]``.

A cell's last expression is shown as Jupyter shows it, so that nobody needs Jupyter to keep the pages up to date.
"""

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

NOTEBOOKS = Path(__file__).parent
#: What a notebook keeps of an output; longer ones are seen by whoever runs it.
LONGEST = 60_000


def code_cells(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that hold code, in order."""
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def run(cell: dict[str, Any], names: dict[str, Any]) -> Any:
    """Run a cell and give its last expression; None where it ends in a statement."""
    *before, last = ast.parse("".join(cell["source"])).body
    if not isinstance(last, ast.Expr):
        before, last = [*before, last], None
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def outputs(value: Any, printed: str, number: int) -> list[dict[str, Any]]:
    """Give a cell's outputs in the notebook format: what it printed, and its last expression."""
    stream = {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
    streams = [stream] if printed else []
    if value is None:
        return streams
    data = {"text/plain": repr(value).splitlines(keepends=True)}
    if isinstance(value, Image.Image):
        file = io.BytesIO()
        value.convert("RGB").quantize(256).save(file, format="png", optimize=True)  # a third of the size
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
    elif hasattr(value, "savefig"):
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=80, bbox_inches="tight")
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
    elif hasattr(value, "_repr_html_") and len(shown := value._repr_html_()) < LONGEST:
        data["text/html"] = shown.splitlines(keepends=True)
    return [*streams, {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}]


def executed(document: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Run a notebook in the current folder.

    Returns:
        The notebook with its outputs, and what each cell showed.
    """
    names: dict[str, Any] = {}
    values = []
    for number, cell in enumerate(code_cells(document), start=1):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            values.append(run(cell, names))
        cell |= {"execution_count": number, "outputs": outputs(values[-1], printed.getvalue(), number)}
    return document, values


if __name__ == "__main__":
    for path in [NOTEBOOKS / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            document, _ = executed(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
