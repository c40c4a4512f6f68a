"""Copies and wrong labels planted among features are found, and shown."""

import base64
import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from toolkit.data.feed.split import Subset
from toolkit.errors import UserError
from toolkit.metrics import softmax
from toolkit.transfer.finetune import Step
from toolkit.transfer.heads.curve import CurvePoint, Forecast, LearningCurve
from toolkit.transfer.heads.selection import PROBE, Trial, select_head
from toolkit.transfer.insight import knn_accuracy, label_doubts, map_of, near_duplicates
from toolkit.transfer.report import HeldOut, Told, write_report

RNG = np.random.default_rng(0)
LABELS = np.arange(150) % 3
FEATURES = (6 * np.eye(3, 32)[LABELS] + RNG.normal(size=(150, 32))).astype(np.float16)
WRONG = [4, 50, 99]


def planted():
    features = FEATURES.copy()
    features[20] = features[10] * np.float16(1.5)  # brighter, say
    features[31] = features[30] + RNG.normal(0, 0.05, 32).astype(np.float16)
    return features


def mislabelled():
    labels = LABELS.copy()
    labels[WRONG] = (labels[WRONG] + 1) % 3
    return labels


def test_copies_are_found_and_nothing_else():
    pairs = near_duplicates(planted())
    assert [(first, second) for first, second, _ in pairs] == [(10, 20), (30, 31)]
    assert pairs[0][2] == pytest.approx(1, abs=1e-3)
    assert near_duplicates(FEATURES) == near_duplicates(FEATURES[:1]) == []


def test_wrong_labels_are_doubted_first_and_the_right_one_is_suggested():
    chosen = select_head({"pool": FEATURES}, mislabelled(), num_classes=3)
    doubts = label_doubts(softmax(chosen.logits), mislabelled())
    assert {doubt.index for doubt in doubts[:5]} >= set(WRONG)
    assert all(doubt.suggested == LABELS[doubt.index] for doubt in doubts if doubt.index in WRONG)
    assert all(doubt.given == mislabelled()[doubt.index] for doubt in doubts)
    assert len(label_doubts(softmax(chosen.logits), mislabelled(), limit=1)) == 1


def test_map_puts_like_pictures_together():
    drawn, points = map_of(FEATURES)
    assert points.shape == (150, 2)
    assert drawn.tolist() == list(range(150))
    centres = np.stack([points[label == LABELS].mean(axis=0) for label in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert np.mean(nearest == LABELS) > 0.95
    assert map_of(FEATURES[:3])[1].shape == (3, 2)


def test_map_of_one_picture_and_its_copies_is_one_point():
    assert not map_of(np.tile(FEATURES[:1], (6, 1)))[1].any()  # scikit-learn's tree would end the process


def test_report_holds_the_pictures_it_speaks_of_and_escapes_names(tmp_path):
    paths = []
    for index in range(150):
        paths.append(tmp_path / f"<{index}>.png")
        Image.new("RGB", (40, 30), (index, 0, 255 - index)).save(paths[-1])
    pictures = Subset(tuple(map(str, paths)), tuple(mislabelled().tolist()))
    arguments = {"pictures": pictures, "class_names": ["a&b", "c", "d"], "features": planted()}
    curve = LearningCurve(
        (CurvePoint(40, 0.7, 0.03), CurvePoint(80, 0.8, 0.02), CurvePoint(120, 0.9, 0.02)),
        *(0.1, 0.01, Forecast(0.01, 0.02, 0.03), "Twice as many <would> bring 1 to 3 points more."),
    )
    told = Told(
        [Step("classifier on <all> stages", 0.9321, "out-of-fold", True), Step("training", 0.9, "val", False)],
        [Trial(PROBE, 1, 10.0, 0.4567, 0.8, False), Trial("all stages", 3, 1.0, 0.25, 0.9321, True)],
        ["only <two> classes"],
        curve,
    )
    write_report(tmp_path / "report.html", **arguments, told=told)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>150 pictures in 3 classes</h1>" in page
    assert "<h2>Near duplicates: 2</h2>" in page
    assert page.count("<circle") == 150
    kept = '<td>classifier on &lt;all&gt; stages</td><td>out-of-fold</td><td class="number">93.21</td><td>kept</td>'
    assert kept in page
    assert '<td>training</td><td>val</td><td class="number">90.00</td><td></td>' in page
    numbers = [f'<td class="number">{value}</td>' for value in ("93.21", "+13.21", "0.250", "-0.207")]
    assert f"<td>all stages</td>{''.join(numbers)}<td>chosen</td>" in page
    numbers = [f'<td class="number">{value}</td>' for value in ("80.00", "", "0.457", "")]
    assert f"<td>{PROBE}</td>{''.join(numbers)}<td>the usual choice</td>" in page
    assert page.index("all stages</td><td") < page.index(f"<td>{PROBE}")
    assert "<p>Twice as many &lt;would&gt; bring 1 to 3 points more.</p>" in page
    assert page.count('src="data:image/png') == 1  # the learning curve
    assert "<p>only &lt;two&gt; classes</p>" in page
    assert "a&amp;b" in page
    assert "<10>" not in page
    assert "&lt;10&gt;.png and a&amp;b/" not in page  # 10 and 20 are of other classes
    assert "c/&lt;10&gt;.png and d/&lt;20&gt;.png, cosine 1.000" in page
    first = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(first[1]))) as image:
        red, _, blue = np.asarray(image).mean(axis=(0, 1))
        assert (red, blue) == pytest.approx((10, 245), abs=4)
    assert "prefers-color-scheme: dark" in page
    odd = tmp_path / os.fsdecode(b"K\xe4fer.png")
    shutil.copy(paths[0], odd)
    pictures = Subset((str(odd), *pictures.paths[1:]), pictures.labels)
    write_report(tmp_path / "odd.html", **arguments | {"pictures": pictures})
    assert "K\\xe4fer.png" in (tmp_path / "odd.html").read_text("utf-8")
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write_report(tmp_path / "nowhere" / "report.html", **arguments)


def test_report_shows_what_the_network_makes_of_held_out_pictures(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path in paths:
        Image.new("RGB", (40, 30)).save(path)
    answers = np.full((6, 3), 0.1, np.float32) + 0.7 * np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    subset = Subset(tuple(map(str, paths)), (0, 0, 1, 1, 2, 2))
    given = {"pictures": subset, "class_names": ["ant", "bee", "wa<sp"]}
    held_out = [HeldOut("test", subset, answers)]
    write_report(tmp_path / "report.html", **given, features=None, held_out=held_out)
    page = (tmp_path / "report.html").read_text()
    assert "Labels to look at again" not in page  # of pictures that are no one's to relabel
    assert "Accuracy, test pictures<b>83.3 %</b>" in page
    assert "95 % interval: 41.6 to 98.4 %" in page
    assert "<b>83.33 %</b>balanced accuracy" in page
    assert "<b>3.33 %</b>calibration error" in page  # sure by 0.8, right five times of six
    numbers = "".join(f'<td class="number">{value}</td>' for value in ("2", "100.00", "50.00", "66.67"))
    assert f"<td>wa&lt;sp</td>{numbers}" in page
    assert '<td>wa&lt;sp</td><td>ant</td><td class="number">1</td>' in page
    assert page.count('src="data:image/png') == 2  # confusion matrix and calibration
    assert "5.png: called ant, 80 %; is wa&lt;sp, 10 %" in page
    assert "<h2>Map</h2>" not in page
    out_of_fold = [HeldOut("out-of-fold", subset, answers, standard_error=0.1), *held_out]
    write_report(tmp_path / "report.html", **given, features=None, held_out=out_of_fold)
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Labels to look at again: 1</h2>" in page
    assert "Accuracy, out of fold<b>83.3 %</b>" in page
    assert "63.7 to 100.0 %" in page
    assert "<h2>Results, test</h2>" in page
    assert "5.png: wa&lt;sp; rather ant, more probable by 0.70" in page


OWN = np.random.default_rng(0)
KNOWN = OWN.normal(size=(300, 16)).astype(np.float16)
QUERIES = OWN.normal(size=(70, 16)).astype(np.float16)


def test_vote_of_neighbours():
    labels = np.arange(300) % 3
    centres = 4 * np.eye(3, 16)
    train, val = KNOWN + centres[labels], OWN.normal(size=(90, 16)) + centres[np.arange(90) % 3]
    assert knn_accuracy(train, labels, val, np.arange(90) % 3) > 0.9
    assert knn_accuracy(train, labels, val, (np.arange(90) + 1) % 3) < 0.1
