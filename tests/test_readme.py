"""The README and the guide hold against the code, the records and the files."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

from toolkit import list_models, model_info

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPRESSING = (ROOT / "docs" / "compressing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_is_short():
    assert len(README.splitlines()) <= 150


def test_python_runs(bundle, tmp_path, monkeypatch, capsys):
    shutil.copytree(bundle.parent, tmp_path / "saved_models" / "digits")
    example = next((bundle / "assets.extra" / "examples").iterdir())
    shutil.copy(example, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
    label, probability = capsys.readouterr().out.split()[:2]
    assert label in "0123456789"
    assert 0 < float(probability) <= 1


def test_networks_are_those_registered():
    assert f"{len(list_models())} networks" in README
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE))
    for name in set(rows) & set(list_models()):
        cells = [cell.strip() for cell in rows[name].split("|")]
        info = model_info(name)
        assert cells[-3:] == ["×".join(map(str, info.input_shape)), f"{info.num_params:,}", f"{info.macs:,}"]


def test_pages_are_up_to_date():
    written = runpy.run_path(str(ROOT / "docs" / "build.py"))["written"]()
    for path, text in written.items():
        assert (ROOT / "docs" / path).read_text(encoding="utf-8") == text, f"{path}: run python docs/build.py"
    assert {path for path in written if "/" in path} == {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "python").iterdir()
    }


def test_pictures_of_results_are_drawn_from_the_records():
    results = runpy.run_path(str(ROOT / "docs" / "results.py"))
    drawn = {chart.name: chart.digest for chart in results["charts"]()}
    files = {file.stem: file.read_text(encoding="utf-8") for file in results["PICTURES"].glob("*.svg")}
    noted = {name: digest for name, digest in drawn.items() if digest in files.get(name, "")}
    assert noted == drawn, "run python docs/build.py"
    assert set(files) == set(drawn)


def test_a_result_is_the_mean_over_its_seeds_and_what_was_not_run_stays_empty(tmp_path, monkeypatch):
    results = runpy.run_path(str(ROOT / "docs" / "results.py"))
    record = json.loads((ROOT / "benchmarks/results/initialisers.json").read_text())
    run = record["runs"][0] | {"name": "plain20", "train_error": 10.0, "test_error": 20.0}
    more = [run, run | {"seed": 1, "train_error": 12.0, "test_error": 24.0}]
    deep = run | {"name": "plain56", "train_error": 15.0}
    papers = ROOT / "benchmarks/results/papers.json"
    (tmp_path / "papers.json").write_text(papers.read_text())
    (tmp_path / "degradation.json").write_text(json.dumps(record | {"runs": [*more, deep]}))
    monkeypatch.setattr(sys.modules["records"], "RECORDS", tmp_path)
    page = results["page"]()
    epochs = run["epochs"]
    assert f"| `plain20` | {epochs} | 0, 1 | 11.00 ± 1.41 | 22.00 ± 2.83 | – |" in page
    assert "| `resnet20` | – | – | – | – | 8.75 |" in page
    assert "plain56 ends above plain20 in training error, 15.00 against 11.00 %" in page


def test_figures_are_those_recorded():
    engines = json.loads((ROOT / "benchmarks/results/engines-resnet50.json").read_text())
    for row in engines["rows"]:
        assert re.search(rf"`{row['engine']}` .*{row['images_per_s']:.0f} \({row['speedup']:.1f}×\)", README)
    digits = json.loads((ROOT / "benchmarks/results/digits-result.json").read_text())
    assert f"{100 * digits['top1']:.2f} % on {digits['n']} held-out" in README
    for name in ("lenet5", "resnet20", "googlenet"):
        rows = json.loads((ROOT / f"benchmarks/results/compress-{name}.json").read_text())["rows"]
        size, told = rows[0]["bytes"], re.search(rf"^\| `{name}`, .*", COMPRESSING, re.MULTILINE)
        assert f"| {100 * rows[0]['top1']:.2f} |" in told[0]
        for row in rows:
            if row["method"] in ("int8", "qat"):
                assert f"{100 * row['top1']:.2f} ({row['bytes'] / size:.2f}×)" in told[0]
    divisions = json.loads((ROOT / "benchmarks/results/compress-googlenet-divisions.json").read_text())["rows"]
    told = f"{divisions[-1]['n']} in five divisions" + "".join(
        f" | {divisions[-1][name]:.2f}" for name in ("float", "int8", "qat")
    )
    assert (len(divisions), told in COMPRESSING) == (6, True)


def test_files_named_exist():
    for path in re.findall(r"`((?:docs|apps|benchmarks)/[\w/.-]+)`|\((docs/[\w.]+)\)", README):
        assert (ROOT / (path[0] or path[1])).exists()
