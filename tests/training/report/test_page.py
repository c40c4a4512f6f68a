import csv
import json
import re

import keras
import numpy as np
import pytest
from PIL import Image

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Split, Subset
from toolkit.engines.runtimes import KerasEngine
from toolkit.report import plots
from toolkit.spec import Preprocessing
from toolkit.training.report.page import write_report
from toolkit.training.run_dir import GRADIENT_NORMS, METRICS, RunDirectory

PREPROCESSING = Preprocessing((8, 8), channel_order="grey", mean=(0.0,), std=(1.0,))


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.begin(dict.fromkeys(("config.json", "model.json", "environment.json"), "{}"), resume=False)
    for epoch in (1, 2):
        row = {"loss": 1 / epoch, "val_loss": 1.1 / epoch, "accuracy": 0.5, "val_accuracy": 0.4, "lr": 0.1}
        directory.append_row(METRICS, {"epoch": epoch} | row)
        directory.append_row(GRADIENT_NORMS, {"epoch": epoch, "norms": {"stage1_conv": 0.1, "head_logits": 1.0}})
    return directory


@pytest.fixture
def split(tmp_path) -> Split:
    """Pictures that are nothing but a grey level, dark or bright, of which one is in the wrong class."""
    paths, labels = [], []
    for index, (level, label) in enumerate([(20, 0), (40, 0), (230, 0), (210, 1), (250, 1)]):
        paths.append(str(tmp_path / f"{index}.png"))
        labels.append(label)
        Image.new("L", (8, 8), level).save(paths[-1])
    return Split(Subset((), ()), Subset((), ()), Subset(tuple(paths), tuple(labels)))


def brightness() -> keras.Model:
    """Calls a picture by its brightness: class 0 below the middle grey, class 1 above."""
    inputs = keras.layers.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))
    model.layers[-1].set_weights([np.array([[-8.0, 8.0]]), np.array([4.0, -4.0])])
    return model


def answers(model: keras.Model, subset: Subset) -> np.ndarray:
    return KerasEngine(model, PREPROCESSING).probabilities(load_pixels(subset.paths, PREPROCESSING))


def test_report_is_one_page_with_everything_in_it(run, split):
    names = ["<dark>", "bright"]
    metrics = write_report(answers(brightness(), split.test), split, PREPROCESSING, names, run, title="A & B")
    assert metrics["subset"] == "test"
    assert metrics["top1"] == pytest.approx(4 / 5)
    assert metrics["macro_recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert json.loads((run.path / "result.json").read_text()) == metrics

    rows = csv.DictReader((run.path / "classes.csv").read_text().splitlines())
    assert [row["name"] for row in rows] == names
    confusion = list(csv.reader((run.path / "confusion.csv").read_text().splitlines()))
    assert confusion[1:] == [["<dark>", "2", "1"], ["bright", "0", "2"]]

    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere
    assert page.count('src="data:image/png;base64,') == 4
    assert "A &amp; B" in page
    assert "&lt;dark&gt;" in page
    assert "<dark>" not in page
    assert "80.00 %" in page
    for name in ("curves", "confusion", "gradient_norms", "mistakes"):
        with Image.open(run.path / f"{name}.png") as picture:
            assert min(picture.size) > 100


def test_matrix_of_many_classes_is_left_to_its_table(run, tmp_path):
    many = plots.MAX_CONFUSION_CLASSES + 1
    path = tmp_path / "0.png"
    Image.new("L", (8, 8), 250).save(path)
    split = Split(Subset((), ()), Subset((str(path),), (1,)), Subset((), ()))
    inputs = keras.layers.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Dense(many)(keras.layers.GlobalAveragePooling2D()(inputs)))
    names = [str(index) for index in range(many)]
    probabilities = answers(model, split.val)
    assert write_report(probabilities, split, PREPROCESSING, names, run, title="many")["subset"] == "val"
    assert not (run.path / "confusion.png").exists()
    assert len((run.path / "confusion.csv").read_text().splitlines()) == many + 1
