"""Networks saved whole tell what they were trained with, wherever their file goes."""

import json
import shutil
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest

import toolkit
from toolkit import preprocessing_of
from toolkit.factory import open_network
from toolkit.spec import Preprocessing
from toolkit.training.run_dir import RunDirectory

#: Not what LeNet-5 takes by default.
OWN = Preprocessing((32, 32), channel_order="grey", scale=1.0, mean=(100.0,), std=(50.0,))


def run_with_model(directory):
    """The directory of a finished run of an untrained LeNet-5 with a preprocessing of its own."""
    run = RunDirectory(directory)
    noted = json.dumps({"name": "lenet5", "preprocessing": OWN.as_dict()})
    run.begin({"config.json": "{}", "model.json": noted}, resume=False)
    model = toolkit.create_model("lenet5", num_classes=3)
    model.preprocessing = OWN
    run.finish(model)
    return run, model


def test_network_of_a_run_tells_its_preprocessing_wherever_it_is(tmp_path):
    run, model = run_with_model(tmp_path / "run")
    moved = shutil.copy(run.model_file, tmp_path / "moved.keras")
    for file in (run.model_file, moved):
        assert preprocessing_of(open_network(file)) == OWN
        assert preprocessing_of(open_network(file, num_classes=7)) == OWN
        assert preprocessing_of(toolkit.create_model("lenet5", weights=file)) == OWN
    given = replace(OWN, scale=0.5)
    assert preprocessing_of(open_network(moved, preprocessing=given)) == given  # what a person says counts
    with zipfile.ZipFile(moved) as archive:  # of more entries than Keras' own it would unpack all to open one
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
    reopened = keras.saving.load_model(moved)
    assert all(map(np.array_equal, reopened.get_weights(), model.get_weights()))


def test_network_of_an_earlier_run_is_known_by_its_directory(tmp_path):
    run, model = run_with_model(tmp_path / "run")
    model.save(run.model_file)  # as Keras does, without a note
    assert preprocessing_of(open_network(run.model_file)) == OWN
    assert preprocessing_of(toolkit.create_model("lenet5", weights=run.path)) == OWN
    (run.path / "model.json").write_text("{")
    with pytest.raises(toolkit.UserError, match=r"model\.json: cannot be read"):
        open_network(run.model_file)


def test_network_of_a_bundle_tells_its_preprocessing(bundle, lenet_preprocessing, tmp_path):
    moved = shutil.copy(bundle / "assets.extra/model.keras", tmp_path / "moved.keras")
    assert preprocessing_of(open_network(moved)) == lenet_preprocessing


def test_note_in_a_network_that_is_damaged_is_said(tmp_path):
    toolkit.create_model("lenet5").save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras", "a") as archive:
        archive.comment = b'toolkit {"network": "lenet5", "variant": {}, "preprocessing": {"size": 3}}'
    with pytest.raises(toolkit.UserError, match="its note of variant and preprocessing is damaged"):
        open_network(tmp_path / "model.keras")
