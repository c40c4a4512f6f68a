"""Networks to explain, with the names of their classes, wherever they come from."""

import shutil

import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.explain import open_explainer


def test_a_bundle_brings_names_and_preprocessing(bundle, lenet, lenet_preprocessing):
    explainer = open_explainer(bundle)
    assert explainer.labels == tuple("0123456789")
    assert explainer.preprocessing == lenet_preprocessing
    inputs = np.random.default_rng(0).normal(size=(2, *lenet.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(explainer.model(inputs), lenet(inputs), rtol=1e-5, atol=1e-5)


def test_names_given_come_before_the_bundle_s(bundle, tmp_path):
    names = [f"digit {number}" for number in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    assert open_explainer(bundle, labels=tmp_path / "names.txt").labels == tuple(names)
    assert open_explainer("lenet5", weights=bundle, labels=tmp_path / "names.txt").labels == tuple(names)
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="2 labels for a network of 10 classes"):
        open_explainer(bundle, labels=tmp_path / "names.txt")


def test_a_registered_network_takes_names_of_the_bundle_that_its_weights_are_from(bundle):
    assert open_explainer("lenet5", weights=bundle).labels == tuple("0123456789")


def test_a_file_of_keras_takes_a_preprocessing_and_has_numbers_for_names(lenet, lenet_preprocessing, tmp_path):
    lenet.save(tmp_path / "mine.keras")
    explainer = open_explainer(tmp_path / "mine.keras", preprocessing=lenet_preprocessing)
    assert explainer.labels[:2] == ("class 0", "class 1")
    assert explainer.preprocessing == lenet_preprocessing


def test_the_folder_of_a_tag_s_name_is_not_its_weights(bundle, tmp_path, monkeypatch, lenet):
    """The tag comes first, so that names are not taken from a folder whose weights are not."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, tmp_path / "imagenet")
    monkeypatch.setattr("toolkit.explain.opening.locate_weights", lambda info, weights: object())
    monkeypatch.setattr("toolkit.explain.opening.create_model", lambda name, weights: lenet)
    assert open_explainer("lenet5", weights="imagenet").labels[:2] == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("lenet6", {}, "no such bundle, file or network; did you mean 'lenet5'"),
        ("lenet6", {"weights": "imagenet"}, "unknown model 'lenet6'; did you mean 'lenet5'"),
        ("lenet5", {"weights": "imagnet"}, "lenet5 has no weights 'imagnet'"),
        ("lenet5", {}, "has no published weights"),
        ("gone.keras", {}, "no network at gone.keras"),
    ],
)
def test_mistakes(source, options, message):
    with pytest.raises(UserError, match=message):
        open_explainer(source, **options)
