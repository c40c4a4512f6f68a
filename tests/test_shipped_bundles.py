"""The bundles in ``saved_models``: whole, small, as good as they say, and found by their names."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import toolkit
from toolkit import Predictor, create_model, model_info
from toolkit.bundle import (
    EXAMPLES,
    KERAS_FILE,
    MANIFEST,
    PICTURES,
    SHIPPED,
    find_bundle,
    promote,
    prune,
    read_examples,
    read_manifest,
    read_pictures,
    require_bundles,
    roll_back,
    share_traffic,
    shipped_bundle,
    verify_files,
    write_pictures,
)
from toolkit.cli.options import parse
from toolkit.cli.parser import build_parser
from toolkit.errors import UserError
from toolkit.network import load_network, weights_digest
from toolkit.training.config import apply_overrides
from toolkit.training.recipes import recipe

ROOT = Path(toolkit.__file__).parents[1]
#: Test pictures that are right at least, and what int8 may cost.
PROMISED = {"lenet5-mnist": 0.991, "resnet18-thin": 0.85, "resnet20-cifar10": 0.87}
INT8_COSTS = 0.003


@pytest.fixture(params=SHIPPED)
def name(request) -> str:
    return request.param


@pytest.fixture
def version(name) -> Path:
    return find_bundle(ROOT / "saved_models" / name)


def test_every_file_is_as_it_was_written_and_all_are_small(version):
    manifest = read_manifest(version)
    verify_files(version, manifest)
    files = {path.relative_to(version).as_posix(): path for path in version.rglob("*") if path.is_file()}
    options_of_finetune = "assets.extra/run.toml"
    assert set(files) - {options_of_finetune} == {*manifest.files, MANIFEST}
    assert sum(path.stat().st_size for path in files.values()) <= 3_000_000
    assert len(read_pictures(version, manifest)["test"]) == manifest.metrics["n"] == 10_000


def test_digests_of_pictures_take_the_bytes_that_are_said():
    version = find_bundle(ROOT / "saved_models" / "resnet20-cifar10")
    number = sum(map(len, read_pictures(version, read_manifest(version)).values()))
    told = f"{(version / PICTURES).stat().st_size / number:.1f} bytes"
    assert number == 60_000
    assert f"`pictures.npz`, {told} for each of CIFAR-10's" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert told in (write_pictures.__doc__ or "")


def test_readme_says_how_many_strange_pictures_pass():
    taken = {}
    for name in ("unknown", "unknown-thin"):
        record = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        (shipped,) = [row for row in record["mean_over_sets"] if row["score"] == "novelty, as shipped"]
        taken[name] = shipped["false_accepts"]
    text = " ".join((ROOT / "saved_models" / "README.md").read_text(encoding="utf-8").split())
    told = f"it takes {taken['unknown-thin']:.0f} in 100 for one of yours, where GoogLeNet takes one in "
    assert told in text
    assert int(text.split(told)[1].split()[0]) == pytest.approx(100 / taken["unknown"], rel=0.05)


def test_accuracy_is_what_was_promised_in_int8_too(version, name):
    metrics = read_manifest(version).metrics
    assert metrics["top1"] >= PROMISED[name]
    for engine in ("litert-int8", "openvino-int8"):
        assert metrics[f"top1_{engine}"] >= metrics["top1"] - INT8_COSTS


def test_readme_says_what_was_measured(version, name):
    metrics = read_manifest(version).metrics
    lines = (ROOT / "saved_models" / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in row.split("|")]
    assert f"{100 * metrics['top1']:.2f} %" in cells
    assert f"{100 * metrics['top1_litert-int8']:.2f} %" in cells
    megabytes = sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) / 1e6
    assert f"{megabytes:.1f} MB" in cells


def test_readme_says_what_was_measured_of_fine_tuning():
    text = (ROOT / "saved_models" / "README.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "results" / "backbones.json").read_text())["rows"]
    assert len(rows) == 4
    measured = ("resnet18", "resnet20", "fresh", "googlenet", "resnet18_out_of_fold", "resnet20_out_of_fold")
    for row in rows:
        shares = [f"{row[side]:.1f} %" for side in measured]
        assert " | ".join([f"| {row['set']}", str(row["classes"]), str(row["train"]), *shares]) in text


def test_readme_says_what_it_answers_to_photographs(tmp_path):
    toolkit.samples("photographs", tmp_path / "photographs")
    predictions = toolkit.predict("resnet20-cifar10", tmp_path / "photographs")
    labels = {Path(row["path"]).stem: label for row, label in zip(predictions, predictions.labels, strict=True)}
    assert labels.pop("lion") is None
    text = " ".join((ROOT / "saved_models" / "README.md").read_text(encoding="utf-8").split())
    named = "a cheetah a {cheetah1}, a flower a {flower}, a pagoda a {china} and a tower a {tower}; a lion is below"
    assert named.format(**labels) in text


def test_its_command_is_one_of_this_version(version, name):
    file = ROOT / "saved_models" / f"{name}.toml"
    program, command, _, *options = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split()
    assert program == "toolkit"
    assert options == ["--config", f"saved_models/{name}.toml"]
    arguments = parse(build_parser(), [command, "pictures", "--config", str(file)])
    assert arguments.model == read_manifest(version).model
    if command == "finetune":
        assert arguments.out == Path("saved_models", name)
        return
    assert arguments.export == Path("saved_models", name)
    apply_overrides(recipe(model_info(arguments.model).recipe), tuple(arguments.set))


def test_most_of_its_examples_are_named_rightly(version):
    predictor = Predictor.load(version, engine="litert-int8")
    examples = read_examples(version)
    assert len(examples) == 10
    answers = predictor.predict([example.path for example in examples])
    right = [row[0].label == example.label for row, example in zip(answers, examples, strict=True)]
    assert sum(right) >= 8


def test_name_means_it_from_anywhere_unless_something_else_is_called_so(name, version, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_bundle(name, shipped=True) == version
    for call in (find_bundle, promote, share_traffic, prune, roll_back):  # for whoever writes
        with pytest.raises(UserError) as error:
            call(name)
        place = f"the one that comes with the project is {version.parent}: give that path, or the path of a copy"
        assert str(error.value) == f"{name}: no such bundle; {place}"
    with pytest.raises(UserError, match=f"expected a folder of bundles; those .* are in {version.parent.parent}$"):
        require_bundles(name)
    manifest = read_manifest(version)
    model = create_model(manifest.model, weights=name)
    assert weights_digest(model) == manifest.weights_digest == weights_digest(load_network(version / KERAS_FILE))
    shutil.copytree(version, tmp_path / name / "7", ignore=shutil.ignore_patterns(Path(EXAMPLES).name))
    assert find_bundle(name, shipped=True) == Path(name, "7")


def test_other_names_are_told_which_there_are():
    with pytest.raises(UserError, match="nowhere: no such bundle; the project brings "):
        find_bundle("nowhere", shipped=True)
    assert shipped_bundle("nowhere") is None
    with pytest.raises(UserError, match="; the project's own: resnet20-cifar10; or give"):
        create_model("resnet20", weights="imagenet")


def test_git_carries_every_file_unchanged(version):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    files = [str(path.relative_to(ROOT)) for path in version.rglob("*") if path.is_file()]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True)
    assert (ignored.returncode, ignored.stdout) == (1, "")
    attributes = subprocess.run(["git", "check-attr", "text", "--", *files], cwd=ROOT, capture_output=True, text=True)
    assert {line.rpartition(": ")[2] for line in attributes.stdout.splitlines()} == {"unset"}
