"""The notebook of the main job runs from its first cell to its last, and shows what it should."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "photos_to_classifier.ipynb"


def cells() -> list[str]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]


def run(cell: str, names: dict) -> object:
    """Run a cell as a notebook does, and give its last expression."""
    *before, last = ast.parse(cell).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_notebook_is_ten_cells_without_outputs():
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], len(cells())) == (4, 10)
    assert not any(cell.get("outputs") for cell in document["cells"])
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])


@pytest.mark.slow
def test_every_cell_runs_and_shows_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    names: dict = {}
    shown = [run(cell, names) for cell in cells()]
    written, folder, checked, run_of, page, result, report, bundle, predictions, evaluated = shown
    assert written == {"path": "photos", "n": 1797}
    assert folder._repr_html_().count("<img") == 50
    assert "1,797 pictures in 10 classes" in checked.html
    assert "accuracy" in run_of._repr_html_()
    assert "Learning curves" in page.html
    assert result["accuracy"] > 0.9
    assert f"{100 * result['accuracy']:.1f} %" in report.html
    assert (bundle / "saved_model.pb").exists()
    assert result["bundle"] == str(bundle) == "saved_models/mine/1"
    assert len(predictions) > 10
    assert set(predictions.labels) == {"3"}
    assert predictions._repr_html_().count("<img") == 12
    assert "Classes" in evaluated.html
    assert all("srcdoc" in thing._repr_html_() for thing in (checked, page, report, evaluated))
