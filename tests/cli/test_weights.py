"""Pretrained weights as a newcomer meets them: listed, checked, converted, fine-tuned from, and refused in one line."""

import functools
import hashlib
import http.server
import json
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from forked import run_command

import toolkit
from toolkit.factory import preprocessing_of, save_weights


def run(*arguments: object, cwd: Path, code: int = 0) -> str:
    environment = {"TOOLKIT_CACHE": str(cwd / "cache"), "TOOLKIT_OFFLINE": "1"}
    result = run_command(*arguments, cwd=cwd, environment=environment)
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("weights")
    model = toolkit.create_model("resnet20", num_classes=4)
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 1.5, weight.shape))
    save_weights(model, home / "mine.safetensors")
    return home


def test_list_tells_what_was_published(home):
    rows = json.loads(run("weights", "list", "resnet50", "--json", cwd=home))
    by_tag = {row["tag"]: row for row in rows}
    assert by_tag["imagenet"]["stands_for"] != "imagenet"
    assert by_tag["imagenet"]["top1"] == pytest.approx(max(row["top1"] for row in rows), abs=5e-4)
    assert by_tag["imagenet-keras"]["top1"] == 0.749
    assert all(row["cached"] is None and row["published_in"] for row in rows)
    assert "ZFNet" not in run("weights", "list", cwd=home)
    assert run("weights", "list", "zfnet", cwd=home).startswith("zfnet: its authors published no weights")
    for name, ending in (("lenet5", "--model lenet5 --weights lenet5-mnist\n"), ("resnet50", "no\n")):
        assert run("weights", "list", name, cwd=home).endswith(ending)  # what comes with the project, or the last tag


def test_what_is_not_here_is_named_with_the_place_to_put_it(home):
    error = run("weights", "download", "resnet50", "imagenet-keras", cwd=home, code=2)
    assert "https://storage.googleapis.com/tensorflow/keras-applications/resnet/" in error
    assert str(home / "cache") in error
    assert error.count("\n") == 1
    assert "not downloaded" in run("weights", "verify", "resnet50", "imagenet-keras", cwd=home, code=2)
    assert "did you mean" in run("weights", "list", "resnet5O", cwd=home, code=2)


def test_any_file_is_verified_and_converted(home):
    report = json.loads(run("weights", "verify", "resnet20", "mine.safetensors", "--json", cwd=home))
    assert report["source"] == "toolkit"
    assert report["digest"] is None
    document = json.loads(
        run("weights", "convert", "mine.safetensors", "mine.weights.h5", "--model", "resnet20", "--json", cwd=home)
    )
    assert document["bytes"] == (home / "mine.weights.h5").stat().st_size
    first, second = (
        toolkit.create_model("resnet20", weights=home / name) for name in ("mine.safetensors", "mine.weights.h5")
    )
    assert first.output_shape == (None, 4)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    error = run("weights", "convert", "mine.safetensors", "mine.pth", "--model", "resnet20", cwd=home, code=2)
    assert "must end in .safetensors or .weights.h5" in error
    error = run(
        "weights", "convert", "mine.safetensors", "nowhere/m.safetensors", "--model", "resnet20", cwd=home, code=2
    )
    assert "there is no directory nowhere" in error
    error = run("weights", "verify", "resnet32", "mine.safetensors", cwd=home, code=2)
    assert "holds weights of resnet20, not of resnet32" in error
    assert "tags: cifar10" in run("weights", "verify", "resnet20", cwd=home, code=2)


def test_a_deeper_network_starts_with_the_answers_of_a_shallower(home):
    shallow = toolkit.create_model("resnet20", num_classes=4, shortcut="B")
    save_weights(shallow, home / "shallow.safetensors")
    command = ("weights", "convert", "shallow.safetensors", "deeper.safetensors", "--model", "resnet20")
    run(*command, "--deepen", "resnet32", cwd=home)
    deep = toolkit.create_model("resnet32", weights=home / "deeper.safetensors")
    picture = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    answers = [keras.ops.convert_to_numpy(model(picture)) for model in (shallow, deep)]
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=1e-5)
    assert "no block that resnet20 lacks" in run(*command, "--deepen", "resnet20", cwd=home, code=2)


@pytest.fixture
def served(home):
    """The directory over HTTP on loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=home)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_tag_brings_file_variant_classes_and_preprocessing(home, served, monkeypatch, tmp_path):
    from toolkit import model_info
    from toolkit.spec import Preprocessing, PretrainedWeights

    path = save_weights(
        toolkit.create_model("resnet20", num_classes=4, shortcut="B"), home / "published.safetensors", variant={}
    )
    stated = Preprocessing((32, 32), resize="stretch", mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    entry = PretrainedWeights(
        tag="test", url=f"{served}/published.safetensors", num_classes=4, layout="toolkit",
        digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", preprocessing=stated,
        variant={"shortcut": "B"},
    )  # fmt: skip
    info = model_info("resnet20")
    monkeypatch.setattr(
        "toolkit.factory.create.model_info",
        lambda name: info.__class__(**{**vars(info), "weights": {"test": entry}}),
    )
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOOLKIT_OFFLINE", raising=False)
    model = toolkit.create_model("resnet20", weights="test")
    assert model.output_shape == (None, 4)
    assert model.get_layer("stage2_block1_shortcut_conv")
    assert preprocessing_of(model) == stated
    reference = toolkit.create_model("resnet20", weights=path)
    picture = np.ones((1, 32, 32, 3), "float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(picture)), keras.ops.convert_to_numpy(reference(picture))
    )


@pytest.mark.slow
def test_finetuning_from_a_file_takes_its_preprocessing_into_the_bundle(home, digits):
    from toolkit.spec import Preprocessing

    model = toolkit.create_model("lenet5")
    model.preprocessing = Preprocessing((32, 32), channel_order="grey", scale=1.0, mean=(100.0,), std=(50.0,))
    save_weights(model, home / "digits.safetensors")
    run(
        *("finetune", digits, "--model", "lenet5", "--weights", "digits.safetensors"),
        *("--out", "saved_models/tuned", "--json"),
        cwd=home,
    )
    manifest = json.loads((home / "saved_models/tuned/1/assets.extra/manifest.json").read_text())
    assert (manifest["preprocessing"]["mean"], manifest["preprocessing"]["std"]) == ([100.0], [50.0])
