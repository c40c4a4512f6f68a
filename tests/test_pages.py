"""The pages below ``docs`` hold: their examples run, their figures are those recorded, and the site can be built."""

import doctest
import json
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from toolkit import model_info

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "pycon")], ids=lambda page: page.stem)
def test_examples_answer_as_printed(page):
    examples = doctest.DocTestParser().get_doctest("\n".join(fenced(page, "pycon")), {}, page.name, str(page), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(examples, out=said.append)
    assert not said, "".join(said)
    assert runner.tries


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "python")], ids=lambda page: page.stem)
def test_python_is_python(page):
    for code in fenced(page, "python"):
        compile(code, page.name, "exec")


def test_figures_of_the_first_classifier_are_those_recorded():
    page = " ".join((DOCS / "first.md").read_text(encoding="utf-8").split())
    digits = json.loads((ROOT / "benchmarks/results/digits-result.json").read_text())
    assert (
        f"Of the {digits['n']} pictures that were held out, the network gets {100 * digits['top1']:.2f} % right" in page
    )
    assert f"The {('no', 'one', 'two')[round((1 - digits['top1']) * digits['n'])]} that it got wrong" in page
    assert f"LeNet-5 has {model_info('lenet5').num_params:,} weights" in page
    [command] = re.findall(r"TRAIN_COMMAND = \$\(BIN\)/((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text())
    recorded = command.replace("\\", "").replace("$(BUNDLE)", "saved_models/digits").replace("--resume ", "").split()
    assert " ".join(recorded) in page.replace("\\ ", "")


def test_every_record_is_on_the_page_of_results_with_its_day(monkeypatch):
    page, read, opened = runpy.run_path(str(DOCS / "results.py"))["page"], Path.read_text, set()

    def noting(path, *args, **kwargs):
        opened.add(path.name)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", noting)
    lines = page().splitlines()
    records = {file.name for file in (ROOT / "benchmarks/results").glob("*.json")}
    assert records <= opened
    for name in records - {"papers.json"}:
        record = json.loads(read(ROOT / "benchmarks/results" / name))
        runs = [record] if "date" in record else record["rows"]  # published weights are measured one by one
        for run in runs:
            assert any(run["date"] in line and run.get("command", "") in line for line in lines), name


def test_training_in_bfloat16_takes_what_was_measured():
    page = " ".join((DOCS / "training.md").read_text(encoding="utf-8").split())
    rows = json.loads((ROOT / "benchmarks/results/training.json").read_text())["rows"]
    used = {(row["model"], row["policy"]): row["cpu_ms"] for row in rows if row["side"] == "toolkit"}
    small, large = (used[model, "mixed_bfloat16"] / used[model, "float32"] for model in ("resnet20", "resnet50"))
    told = f"a step of ResNet-20 takes {small:.2f} of float32's processor time and one of ResNet-50 {large:.2f}"
    assert told in page


def test_pictures_are_small():
    for picture in (DOCS / "pictures").iterdir():
        assert picture.stat().st_size < 150_000, picture


class _Asked(HTMLParser):
    """What a page makes a browser ask for, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.places.append(named.get("src") or "")
        if tag == "link" and named.get("rel") != "canonical":
            self.places.append(named.get("href") or "")


@pytest.mark.slow
def test_site_is_built_without_a_broken_link_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        asked = _Asked()
        asked.feed(page.read_text(encoding="utf-8"))
        assert len(asked.places) > 2
        assert [place for place in asked.places if re.match(r"(https?:)?//", place)] == [], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_ten_minutes_were_never_behind_training_by_hand():
    rows = json.loads((ROOT / "benchmarks/results/budget.json").read_text())["rows"]
    assert len(rows) == 5
    assert all(row["budget"] >= max(row["tutorial"], row["full"]) for row in rows)
    (signs,) = (row for row in rows if row["set"] == "sign_digits")
    told = re.sub(r"\s+", " ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert "sign digits 99 % of the test pictures in ten minutes" in told
    assert round(signs["budget"]) == 99
