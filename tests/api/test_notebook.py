"""The notebooks run to their last cells, show what they should, and keep little of what they showed."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "docs" / "notebooks"
RUN = runpy.run_path(str(NOTEBOOKS / "run.py"))
NAMES = ("fine_tune", "look_inside")


def document(name: str) -> dict:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def kinds(notebook: dict) -> list[list[str]]:
    """Collect the kinds of each cell's outputs."""
    cells = RUN["code_cells"](notebook)
    return [[key for output in cell["outputs"] for key in output.get("data", {"stream": ""})] for cell in cells]


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Run a notebook offline in a folder of its own, and hold its outputs to those that are kept."""

    def run(name: str) -> list:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
        notebook, values = RUN["executed"](document(name))
        assert kinds(notebook) == kinds(document(name)), "run python docs/notebooks/run.py"
        return values

    return run


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_and_small(name):
    notebook = document(name)
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all(cell["outputs"] for cell in RUN["code_cells"](notebook))
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 400_000
    assert str(Path.home()) not in json.dumps(notebook)


@pytest.mark.slow
def test_every_cell_of_fine_tune_runs_and_shows_itself(executed):
    written, folder, checked, run_of, page, result, report, bundle, predictions, evaluated = executed("fine_tune")
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


@pytest.mark.slow
def test_every_cell_of_look_inside_runs(executed):
    values = executed("look_inside")
    predictions, network, filters, heat, part = values[0], values[1], values[4], values[-3], values[-1]
    assert predictions.labels == ["truck"]
    assert network.width > 200
    assert filters.width > 200
    assert heat.size == (720, 160)
    assert part.size == (240, 160)
