"""Bundles pushed to a hub on loopback, pulled again, and opened by others."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from toolkit import Predictor, UserError
from toolkit.bundle import EnsembleMember, read_manifest, write_manifest
from toolkit.cli import main
from toolkit.hub.pull import pull_bundle
from toolkit.hub.push import PushOptions, push_bundle
from toolkit.metrics import confidence_interval

CARD, WEIGHTS = "README.md", "model.safetensors"


def front_matter(card: bytes) -> dict:
    return yaml.safe_load(card.decode().split("---\n")[1])


@pytest.fixture
def pushed_digits(hub, token, bundle):
    """What a push of the digits answered, and its repository."""
    return push_bundle(bundle, "hf://user/digits", PushOptions(licence="MIT")), hub.repositories["user/digits"]


def test_push_comes_back_to_the_byte_and_answers(pushed_digits, hub, bundle, tmp_path, jpegs):
    result, repository = pushed_digits
    assert result["address"] == "hf://user/digits@v1"
    assert result["url"] == f"{hub.url}/user/digits"
    assert repository.refs["v1"] == repository.refs["main"] == result["commit"]
    files = repository.files("v1")
    manifest = read_manifest(bundle)
    # Options of the command with this machine's paths stay here.
    assert set(files) - {".gitattributes"} == {*manifest.files, "assets.extra/manifest.json", CARD, WEIGHTS}
    assert sorted(result["files"]) == sorted(set(files) - {".gitattributes"})
    pulled = pull_bundle("hf://user/digits@v1", tmp_path / "mine")["bundle"]
    answers = [Predictor.load(place, engine="litert").probabilities(jpegs[:2]) for place in (bundle, pulled)]
    np.testing.assert_array_equal(*answers)
    asked_for = []
    with pytest.raises(UserError, match=r"hf://user/digits@v1: is there already; name another tag"):
        push_bundle(bundle, "hf://user/digits", PushOptions(others=asked_for.append))
    assert asked_for == []


def test_a_shipped_bundle_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    with pytest.raises(UserError, match="hf://user/digits@v1: the hub is not asked while"):
        push_bundle("lenet5-mnist", "hf://user/digits")


def test_weights_are_the_networks_by_name(pushed_digits, lenet, tmp_path):
    from toolkit import create_model

    (tmp_path / WEIGHTS).write_bytes(pushed_digits[1].files("v1")[WEIGHTS])
    with safe_open(tmp_path / WEIGHTS, "np") as file:
        kernel = file.get_tensor("head_logits/kernel")
    np.testing.assert_array_equal(kernel, lenet.get_layer("head_logits").kernel)
    again = create_model("lenet5", weights=tmp_path / WEIGHTS)
    np.testing.assert_array_equal(again.get_layer("head_logits").kernel, kernel)


def test_card_tells_what_the_manifest_knows(pushed_digits, bundle):
    card = pushed_digits[1].files("v1")[CARD]
    document, manifest = front_matter(card), read_manifest(bundle)
    assert document["pipeline_tag"] == "image-classification"
    assert document["license"] == "mit"
    [metric] = document["model-index"][0]["results"][0]["metrics"][:1]
    assert metric["value"] == round(manifest.metrics["top1"], 4)
    assert all(label in card.decode() for label in manifest.labels)
    assert "Predictor.load('hf://user/digits@v1')" in card.decode()
    top1 = manifest.metrics["top1"]
    low, high = (100 * bound for bound in confidence_interval(top1, int(manifest.metrics["n"])))
    assert 0 < low < 100 * top1 < high < 100
    assert f"| top-1 accuracy | {100 * top1:.2f} % | {low:.1f} – {high:.1f} % |" in card.decode().splitlines()
    engine, difference = manifest.metrics["top1_litert-int8"], manifest.parity["litert-int8"]
    assert f"| litert-int8 | {100 * engine:.2f} % | {difference:.1e} |" in card.decode().splitlines()
    [limits] = re.findall(r"## Limits\n\n(.*?)\n\n## ", card.decode(), re.DOTALL)
    assert "- It sees a picture at 32×32 pixels: what is too small to be seen there, it does not see." in limits


def test_licence_of_the_manifest_is_the_cards_and_a_given_one_counts(hub, token, plain_bundle):
    manifest = read_manifest(plain_bundle)
    # Of an ensemble there are no weights of one network to read.
    member = EnsembleMember("digits/1", "lenet5", "0" * 64, manifest.preprocessing)
    write_manifest(plain_bundle, replace(manifest, members=(member,), licence="CC-BY-4.0"))
    push_bundle(plain_bundle, "hf://user/digits@theirs")
    push_bundle(plain_bundle, "hf://user/digits@given", PushOptions(licence="MIT"))
    push_bundle(plain_bundle, "hf://user/digits@odd", PushOptions(licence="Ask *me* first"))
    cards = [hub.repositories["user/digits"].files(tag)[CARD] for tag in ("theirs", "given", "odd")]
    assert [front_matter(card)["license"] for card in cards] == ["cc-by-4.0", "mit", "other"]
    assert front_matter(cards[2])["license_name"] == "Ask *me* first"
    assert "- Licence of the weights: CC-BY-4.0." in cards[0].decode()


def test_next_version_takes_the_place_of_the_files_before(hub, token, plain_bundle, tmp_path):
    second = Path(shutil.copytree(plain_bundle, plain_bundle.parent / "2"))
    (second / "assets.extra/model.fp32.tflite").unlink()
    for version_dir in (plain_bundle, second):
        manifest = read_manifest(version_dir)
        # Of an ensemble there are no weights of one network to read.
        member = EnsembleMember("digits/1", "lenet5", "0" * 64, manifest.preprocessing)
        write_manifest(version_dir, replace(manifest, members=(member,)))
        push_bundle(version_dir, "hf://user/digits")
    repository = hub.repositories["user/digits"]
    assert "assets.extra/model.fp32.tflite" in repository.files("v1")
    assert "assets.extra/model.fp32.tflite" not in repository.files("v2")
    assert repository.refs["main"] == repository.refs["v2"]
    assert pull_bundle("hf://user/digits", tmp_path / "mine")["commit"] == repository.refs["v2"]


def test_push_without_a_token_or_with_another_is_one_line(hub, bundle, monkeypatch, capfd):
    assert main(["push", str(bundle), "hf://user/digits"]) == 2
    line = "toolkit: error: hf://user/digits@v1: {} lets in only who is logged in; set HF_TOKEN, or run `hf auth login`"
    assert capfd.readouterr().err == line.format(hub.url) + "\n"
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(UserError, match="or the token in use may not write it"):
        push_bundle(bundle, "hf://user/digits")
    assert hub.repositories == {}


def test_damaged_bundle_is_not_pushed(hub, token, plain_bundle):
    (plain_bundle / "assets/labels.txt").write_text("zero\n")
    asked_for = []
    with pytest.raises(UserError, match=r"labels\.txt: checksum differs from the manifest"):
        push_bundle(plain_bundle, "hf://user/digits", PushOptions(others=asked_for.append))
    assert asked_for == []
    assert hub.repositories == {}


def test_offline_nothing_is_pushed(hub, token, plain_bundle, monkeypatch):
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    with pytest.raises(UserError, match="the hub is not asked while"):
        push_bundle(plain_bundle, "hf://user/digits")
    assert hub.requests == []


def test_push_as_a_command_private_and_with_onnx(hub, token, bundle, jpegs, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    command = ["push", str(bundle), "hf://user/digits@first", "--private", "--onnx", "--licence", "MIT", "--json"]
    assert main(command) == 0
    assert json.loads(capfd.readouterr().out)["address"] == "hf://user/digits@first"
    repository = hub.repositories["user/digits"]
    assert repository.private
    session = onnxruntime.InferenceSession(repository.files("first")["model.onnx"])
    predictor = Predictor.load(bundle, engine="litert")
    pixels = np.stack([predictor.decode(picture) for picture in jpegs[:2]])
    [answered] = session.run(["probabilities"], {"pixels": pixels})
    np.testing.assert_allclose(answered, predictor.from_pixels(pixels), atol=1e-4)
