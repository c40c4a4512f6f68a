"""From names and files to networks: what fits is loaded whole, what does not fit is told in one line."""

import logging
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import toolkit
from toolkit.errors import UserError
from toolkit.factory import locate_weights
from toolkit.training.run_dir import RunDirectory

RNG = np.random.default_rng(0)
FORMATS = (".keras", ".weights.h5")


def _save(model, path):
    """Save by suffix, and return the path."""
    (model.save if path.suffix == ".keras" else model.save_weights)(path)
    return path


def _equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_weights_come_back(tmp_path, name, suffix):
    model = toolkit.create_model(name)
    for weight in model.weights:  # moving statistics too, which start alike in every model
        weight.assign(RNG.uniform(0.5, 1.5, weight.shape))
    again = toolkit.create_model(name)
    assert not _equal(model, again)
    toolkit.load_weights(again, _save(model, tmp_path / f"trained{suffix}"))
    assert _equal(model, again)


@pytest.mark.parametrize("suffix", FORMATS)
def test_path_given_to_create_model(tmp_path, suffix):
    model = toolkit.create_model("lenet5")
    path = _save(model, tmp_path / f"trained{suffix}")
    assert _equal(model, toolkit.create_model("lenet5", weights=path))
    assert _equal(model, toolkit.create_model("lenet5", weights=str(path)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_another_number_of_classes_keeps_a_fresh_classifier_and_says_so(tmp_path, caplog, suffix):
    model = toolkit.create_model("lenet5", num_classes=10)
    path = _save(model, tmp_path / f"ten{suffix}")
    with caplog.at_level(logging.INFO, logger="toolkit"):
        other = toolkit.create_model("lenet5", num_classes=3, weights=path)
    assert "head_logits keeps its fresh weights: the file has 10 classes, the model 3" in caplog.text
    assert _equal(keras.Model(model.input, model.layers[-2].output), keras.Model(other.input, other.layers[-2].output))
    assert other.output_shape == (None, 3)


def test_an_exact_fit_says_nothing(tmp_path, caplog):
    path = _save(toolkit.create_model("lenet5"), tmp_path / "ten.keras")
    with caplog.at_level(logging.INFO, logger="toolkit"):
        toolkit.create_model("lenet5", weights=path)
    assert not caplog.records


def test_backbone_takes_a_classifiers_file_and_says_what_it_left(tmp_path, caplog):
    model = toolkit.create_model("resnet20")
    path = _save(model, tmp_path / "whole.keras")
    with caplog.at_level(logging.INFO, logger="toolkit"):
        backbone = toolkit.create_model("resnet20", weights=path, include_top=False)
    assert "leaving out head_logits" in caplog.text
    assert _equal(keras.Model(model.input, model.get_layer("stage3_block3_out").output), backbone)


def test_load_weights_is_strict_about_a_classifier_left_over(tmp_path):
    path = _save(toolkit.create_model("resnet20"), tmp_path / "whole.weights.h5")
    with pytest.raises(UserError, match="the model lacks layer 'head_logits'"):
        toolkit.load_weights(toolkit.create_model("resnet20", include_top=False), path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_lacks_layers_is_refused_and_changes_nothing(tmp_path, suffix):
    path = _save(toolkit.create_model("lenet5", include_top=False), tmp_path / f"backbone{suffix}")
    model = toolkit.create_model("lenet5")
    before = model.get_weights()
    with pytest.raises(UserError, match="the file lacks layer 'head_fc1'") as caught:
        toolkit.load_weights(model, path)
    assert "head_fc2" in str(caught.value)
    assert "head_logits" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_shapes_that_differ_are_shown(tmp_path):
    path = _save(toolkit.create_model("lenet5", input_shape=(28, 28, 1)), tmp_path / "small.weights.h5")
    message = "head_fc1/kernel has shape 256×120 in the file and 400×120 in the model"
    with pytest.raises(UserError, match=message):
        toolkit.create_model("lenet5", weights=path)


def test_long_lists_of_mismatches_are_cut(tmp_path):
    path = _save(toolkit.create_model("lenet5"), tmp_path / "lenet.weights.h5")
    # Lacking: 19 convolutions and as many normalisations; left over: 2 + 2 layers; head_logits differs. 43, 5 shown.
    with pytest.raises(UserError, match="and 38 more") as caught:
        toolkit.create_model("resnet20", weights=path)
    assert "\n" not in str(caught.value)


def test_dropout_seeds_are_no_weights(tmp_path):
    def build():
        x = keras.Input((4,), name="input")
        y = keras.layers.Dropout(0.5, name="head_drop")(keras.layers.Dense(3, name="head_fc")(x))
        return keras.Model(x, y)

    model = build()
    for suffix in FORMATS:
        again = build()
        toolkit.load_weights(again, _save(model, tmp_path / f"dropout{suffix}"))
        assert _equal(again.get_layer("head_fc"), model.get_layer("head_fc"))


def test_training_state_in_the_file_is_left_alone(tmp_path):
    model = toolkit.create_model("lenet5")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.train_on_batch(np.zeros((2, 32, 32, 1), "float32"), np.array([1, 2]))
    for suffix in FORMATS:
        assert _equal(toolkit.create_model("lenet5", weights=_save(model, tmp_path / f"compiled{suffix}")), model)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"not an archive", None], ids=["empty", "text", "truncated"])
def test_damaged_files_are_one_clear_line(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    if content is None:
        content = _save(toolkit.create_model("lenet5"), tmp_path / f"whole{suffix}").read_bytes()[:40_000]
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"broken{suffix}.*(is empty|is no weights file|damaged|truncated file)"
    ) as caught:
        toolkit.create_model("lenet5", weights=path)
    assert "\n" not in str(caught.value)


def test_archive_without_weights_is_refused(tmp_path):
    whole = _save(toolkit.create_model("lenet5"), tmp_path / "whole.keras")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "hollow.keras", "w") as hollow:
        hollow.writestr("config.json", source.read("config.json"))
    with pytest.raises(UserError, match=r"hollow\.keras: the archive holds no 'model\.weights\.h5'"):
        toolkit.create_model("lenet5", weights=tmp_path / "hollow.keras")


def test_code_in_an_archive_is_not_run(tmp_path):
    x = keras.Input((32, 32, 1), name="input")
    model = keras.Model(x, keras.layers.Lambda(lambda value: value * 2, output_shape=(32, 32, 1))(x))
    with pytest.raises(UserError, match=r"lambda\.keras: holds no weights"):
        toolkit.create_model("lenet5", weights=_save(model, tmp_path / "lambda.keras"))


def test_weights_kept_in_another_file_are_not_followed(tmp_path):
    model = toolkit.create_model("lenet5")
    _save(model, tmp_path / "other.weights.h5")
    path = _save(model, tmp_path / "link.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = h5py.ExternalLink("other.weights.h5", "layers/conv2d/vars/0")
    with pytest.raises(UserError, match="kept in another file"):
        toolkit.load_weights(model, path)


def test_h5_of_another_make_is_told_apart(tmp_path):
    with h5py.File(tmp_path / "old.weights.h5", "w") as file:
        file.create_group("model_weights")
    with pytest.raises(UserError, match=r"old\.weights\.h5: .*not written by"):
        toolkit.create_model("lenet5", weights=tmp_path / "old.weights.h5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "imagenet"}, "lenet5 has no weights of ImageNet; tags: none .*; or give the path"),
        ({"weights": "nowhere.keras"}, "no weights file at nowhere.keras"),
        ({"weights": Path("imagenet")}, "no weights file at imagenet"),
        ({"input_shape": (15, 32, 1)}, r"at least 16×16, got input_shape=\(15, 32, 1\)"),
        ({"input_shape": (32, 32)}, r"input_shape must be \(height, width, channels\).*got \(32, 32\)"),
        ({"input_shape": (None, None, 1)}, "three positive integers"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"pooling": "avg"}, "pooling='avg' is for a backbone: give include_top=False"),
        ({"pooling": "mean", "include_top": False}, "pooling must be None, 'avg' or 'max', got 'mean'"),
        ({"version": "v1"}, "unknown keyword 'version'; lenet5 has no variants"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        toolkit.create_model("lenet5", **arguments)


def test_mistyped_variants_suggest_the_nearest():
    with pytest.raises(UserError, match="unknown keyword 'verson'; did you mean 'version'"):
        toolkit.create_model("resnet50", verson="v1")
    with pytest.raises(UserError, match="unknown keyword 'row'"):
        toolkit.create_model("resnet50", row=None)
    with pytest.raises(UserError, match=r"unknown version 'v2'; .*version is one of v1, v1\.5"):
        toolkit.create_model("resnet50", version="v2")


def test_unknown_format_lists_the_known(tmp_path):
    with pytest.raises(UserError, match=r"'caffe'; formats: keras, weights\.h5, h5, safetensors, torch, caffemodel"):
        toolkit.load_weights(toolkit.create_model("lenet5"), tmp_path / "a.keras", format="caffe")


def test_format_overrides_the_name(tmp_path):
    model = toolkit.create_model("lenet5")
    path = _save(model, tmp_path / "trained.weights.h5").rename(tmp_path / "download")
    again = toolkit.create_model("lenet5")
    toolkit.load_weights(again, path, format="weights.h5")
    assert _equal(model, again)


def test_bundles_and_runs_are_weights(bundle, lenet, lenet_preprocessing, tmp_path):
    for path in (bundle, str(bundle.parent)):
        model = toolkit.create_model("lenet5", weights=path)
        assert _equal(model, lenet)
        assert toolkit.preprocessing_of(model) == lenet_preprocessing
    lenet.save(tmp_path / "model.keras")
    assert _equal(toolkit.create_model("lenet5", weights=tmp_path), lenet)
    assert toolkit.create_model("lenet5", num_classes=3, weights=bundle).output_shape == (None, 3)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("gone.keras", "no weights file at"),
        ("empty", "not a bundle"),
        ("begun", "begun: the run is not finished; `tool"),
    ],
)
def test_a_place_without_weights_is_told_before_a_network_is_built(tmp_path, place, fault):
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "begun").begin({"config.json": "{}"}, resume=False)
    info = toolkit.model_info("lenet5")
    with pytest.raises(UserError, match=fault):
        locate_weights(info, str(tmp_path / place))
