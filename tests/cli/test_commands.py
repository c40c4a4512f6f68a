"""The commands as a newcomer meets them, one after another on real digits, and the shape of their JSON."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import run_command

from toolkit import Predictor
from toolkit.metrics import fit_temperature

SETTINGS = ("--set", "run.epochs=6", "--set", "run.batch_size=16", "--set", "data.augment=none")


def run(*arguments: object, cwd: Path, code: int = 0) -> str:
    result = run_command(*arguments, cwd=cwd, environment={"TOOLKIT_CACHE": str(cwd / "cache")})
    assert result.returncode == code, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Digits, a finished run and a bundle of it."""
    home = tmp_path_factory.mktemp("home")
    assert json.loads(run("samples", "digits", "digits", "--json", cwd=home)) == {"path": "digits", "n": 1797}
    result = json.loads(
        run(
            *("train", "digits", "--model", "lenet5", "--out", "run", "--export", "saved_models/digits"),
            *(*SETTINGS, "--examples", "3", "--json"),
            cwd=home,
        )
    )
    assert result["bundle"] == "saved_models/digits/1"
    assert result["metrics"]["n"] == 359
    assert result["metrics"]["top1"] > 0.9
    return home


@pytest.fixture(scope="module")
def bundle(home) -> Path:
    return home / "saved_models" / "digits" / "1"


def test_run_directory_holds_what_the_run_was_told_and_what_it_measured(home):
    names = {path.name for path in (home / "run").iterdir()}
    assert names == {
        *(
            "command.json",
            "run.toml",
            "checkpoints",
            "config.json",
            "model.json",
            "labels.txt",
            "splits.json",
            "environment.json",
            "metrics.jsonl",
        ),
        *("curves.png", "model.keras", "result.json", "report.html", "classes.csv", "confusion.csv"),
        *("confusion.png", "mistakes.png", "gradient_norms.jsonl", "gradient_norms.png"),
    }
    config = json.loads((home / "run" / "config.json").read_text())
    assert config["run"]["epochs"] == 6
    assert config["optimizer"]["name"] == "adamw"
    rows = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]
    splits = json.loads((home / "run" / "splits.json").read_text())
    assert [len(splits[name]) for name in ("train", "val", "test")] == [1079, 359, 359]


def test_finished_run_is_not_trained_again(home):
    modified = (home / "run" / "model.keras").stat().st_mtime_ns
    run("train", "digits", "--model", "lenet5", "--out", "run", "--resume", *SETTINGS, cwd=home)
    assert (home / "run" / "model.keras").stat().st_mtime_ns == modified


def test_run_is_not_overwritten_and_not_resumed_under_other_settings(home):
    run("train", "digits", "--model", "lenet5", "--out", "run", cwd=home, code=2)
    run("train", "--resume", "run", "--set", "optimizer.lr=7", cwd=home, code=2)


def test_trained_bundle_is_calibrated_on_validation(home, bundle):
    val = json.loads((home / "run" / "splits.json").read_text())["val"]
    paths, predictor = [home / "digits" / path for path in val], Predictor.load(bundle, "litert")
    labels = np.array([int(path.parent.name) for path in paths])
    probabilities = predictor.probabilities(paths)
    assert predictor.manifest.temperature != 1
    assert fit_temperature(np.log(probabilities), labels) == pytest.approx(1, abs=0.01)  # nothing is left to divide
    right = probabilities[probabilities.argmax(1) == labels]
    answered = [not predictor.is_rejected(row) for row in right]
    assert 0.95 <= np.mean(answered) < 0.96


def test_predict_answers_json(home, bundle):
    pictures = sorted((bundle / "assets.extra" / "examples").iterdir())
    answers = json.loads(run("predict", bundle, *pictures, "--json", "--top-k", 3, cwd=home))
    assert [answer["path"] for answer in answers] == [str(picture) for picture in pictures]
    for answer in answers:
        probabilities = [prediction["probability"] for prediction in answer["predictions"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert {prediction["label"] for prediction in answer["predictions"]} <= set("0123456789")


def test_bundle_answers_without_this_package_what_predict_answers(home, bundle):
    """Must hold: a process with TensorFlow alone, JPEG bytes in, labels and probabilities out, within 1e-4."""
    from PIL import Image

    jpegs = []
    for digit in "0379":
        source = next((home / "digits" / digit).iterdir())
        jpegs.append(home / f"{digit}.jpg")
        Image.open(source).resize((40, 56)).convert("RGB").save(jpegs[-1], quality=92)
    script = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "toolkit":
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import json, pathlib
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = served(image_bytes=tf.constant([pathlib.Path(p).read_bytes() for p in sys.argv[2:]]))
print(json.dumps({"labels": [[l.decode() for l in row] for row in answer["top_labels"].numpy()],
                  "scores": answer["top_scores"].numpy().tolist()}))
"""
    command = [sys.executable, "-c", script, str(bundle), *map(str, jpegs)]
    served = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)
    answers = json.loads(run("predict", bundle, *jpegs, "--json", cwd=home))
    for labels, scores, answer in zip(served["labels"], served["scores"], answers, strict=True):
        assert labels == [prediction["label"] for prediction in answer["predictions"]]
        assert scores == pytest.approx([prediction["probability"] for prediction in answer["predictions"]], abs=1e-4)


def test_evaluate_gives_the_accuracy_that_training_reported(home, bundle):
    report = json.loads(run("evaluate", bundle, "digits", "--json", cwd=home))
    trained = json.loads((home / "run" / "result.json").read_text())
    assert {key: report[key] for key in ("subset", "n", "top1", "top5", "per_class")} == {
        key: trained[key] for key in ("subset", "n", "top1", "top5", "per_class")
    }
    assert set(report["per_class"]) == set("0123456789")
    everything = json.loads(run("evaluate", bundle, "digits", "--subset", "all", "--json", cwd=home))
    assert (everything["n"], everything["taught"], everything["chose"]) == (1797, 1079, 359)


def test_benchmark(home, bundle):
    report = json.loads(run("benchmark", bundle, "--json", cwd=home))
    fields = {"engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes", "top1_delta"}
    assert all(set(row) == fields for row in report["rows"])
    measured = {(row["engine"], row["batch"]) for row in report["rows"]}
    assert {("savedmodel", 1), ("litert", 16), ("litert-int8", 1), ("openvino", 1), ("openvino-int8", 16)} <= measured
    assert report["recommended"] in {row["engine"] for row in report["rows"]}


@pytest.mark.slow
def test_verify(home, bundle):
    picture = next((bundle / "assets.extra" / "examples").iterdir())
    rows = json.loads(run("verify", bundle, picture, "--json", cwd=home))["rows"]
    differences = {row["engine"]: row["difference"] for row in rows}
    assert differences["keras"] == 0
    for engine in ("savedmodel", "litert", "openvino", "savedmodel image_bytes"):
        assert differences[engine] < 1e-4
    assert differences["litert-int8"] < 0.1


@pytest.mark.slow
def test_compress_writes_the_next_version(home):
    out = run("compress", "saved_models/digits", "--method", "dynamic", "--data", "digits", cwd=home)
    path = home / out.splitlines()[-1]
    assert path.name == "2"
    assert (path / "assets.extra" / "model.dynamic.tflite").stat().st_size < 0.5 * (
        path / "assets.extra" / "model.fp32.tflite"
    ).stat().st_size


@pytest.fixture(scope="module")
def three(home) -> str:
    """Three of the ten classes, as a folder of their own."""
    (home / "three").mkdir()
    for digit in "247":
        (home / "three" / digit).symlink_to(home / "digits" / digit)
    return "three"


@pytest.fixture(scope="module")
def finetuned(home, three) -> tuple[list[str], dict]:
    """The digits network, its classifier replaced for three of the ten classes: the command and its answer."""
    command = ["finetune", three, "--model", "lenet5", "--weights", "run", "--out", "saved_models/three", "--json"]
    return command, json.loads(run(*command, cwd=home))


def test_finetune_caches_features(home, finetuned):
    _, answer = finetuned
    assert answer["bundle"] == "saved_models/three/1"
    assert answer["metrics"]["top1"] > 0.97
    assert list((home / "cache" / "features").rglob("data.mdb"))


@pytest.mark.slow
def test_finetuning_again_writes_the_same_as_the_next_version(home, finetuned):
    command, first = finetuned
    second = json.loads(run(*command, cwd=home))
    assert second["bundle"] == "saved_models/three/2"
    assert second["metrics"] == first["metrics"]


@pytest.mark.slow
def test_finetune_trains_unfrozen_stages_too(home, three):
    command = ("finetune", three, "--model", "lenet5", "--weights", "run", "--out", "saved_models/top", "--json")
    result = json.loads(run(*command, "--unfreeze", "stage2", "--epochs", 1, cwd=home))
    assert result["metrics"]["top1"] > 0.97
    run(*command, "--unfreeze", "stage9", cwd=home, code=2)
    assert not (home / "saved_models" / "top" / "2").exists()


def test_models_lists_and_shows(tmp_path):
    rows = {row["name"]: row for row in json.loads(run("models", "--json", cwd=tmp_path))}
    assert rows["lenet5"]["num_params"] == 61706
    layers = json.loads(run("models", "lenet5", "--json", cwd=tmp_path))
    assert sum(layer["params"] for layer in layers) == 61706
    assert layers[0]["output_shape"] == [32, 32, 1]
    table = run("models", "lenet5", "--draw", "lenet5.svg", cwd=tmp_path)
    assert "61,706" in table
    assert "416,520 multiply-adds, receptive field of the last feature map 16×16, peak activation memory" in table
    assert "5×5 conv, 16" in (tmp_path / "lenet5.svg").read_text()


def test_help_is_quick_and_imports_no_framework(tmp_path):
    """Must hold: ``toolkit --help`` within 0.5 s of CPU time, without TensorFlow or Keras."""
    script = (
        "import resource, sys\nfrom toolkit.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'heavy import'\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\nprint(usage.ru_utime + usage.ru_stime)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    for command in ("train", "finetune", "predict", "serve", "demo"):
        assert command in result.stdout
    assert float(result.stdout.splitlines()[-1]) < 0.5
