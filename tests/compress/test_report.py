import gzip
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from toolkit.compress import compression_report, report_page
from toolkit.compress.report import verdict
from toolkit.compress.sensitivity import RangeRow
from toolkit.data.feed.arrays import load_pixels
from toolkit.engines.convert import to_litert
from toolkit.engines.runtimes import KerasEngine
from toolkit.errors import UserError


@pytest.fixture(scope="module")
def report(lenet, lenet_preprocessing, digits_split, lenet_files):
    files = {method: lenet_files[method] for method in ("int8", "int16x8")}
    return compression_report(lenet, files, preprocessing=lenet_preprocessing, evaluation=digits_split.test)


def test_figures_are_those_of_the_files(report, lenet_files, lenet, lenet_preprocessing, digits_split):
    reference, int8, int16 = report["rows"]
    assert [row["method"] for row in report["rows"]] == ["float", "int8", "int16x8"]
    assert report["n"] == len(digits_split.test)
    assert int8["bytes"] == len(lenet_files["int8"])
    assert int8["gzip_bytes"] == len(gzip.compress(lenet_files["int8"], mtime=0))
    assert reference["bytes"] == len(to_litert(lenet))
    pixels = load_pixels(digits_split.test.paths, lenet_preprocessing)
    labels = np.asarray(digits_split.test.labels)
    answers = KerasEngine(lenet, lenet_preprocessing).probabilities(pixels)
    assert reference["top1"] == np.mean(answers.argmax(1) == labels)
    assert reference["top5"] == np.mean(
        [label in row.argsort()[-5:] for row, label in zip(answers, labels, strict=True)]
    )
    assert reference["agreement"] == 1
    assert reference["worst_change"] == 0
    assert 0 < int16["worst_change"] < int8["worst_change"] < 0.5
    assert int8["mean_change"] < int8["worst_change"]


def test_every_engine_is_timed_and_compared(report):
    openvino = pytest.importorskip("openvino")
    reference, int8, int16 = report["rows"]
    assert openvino
    for row in (reference, int8):
        assert {(t["engine"], t["batch"]) for t in row["latency"]} == {
            (engine, batch) for engine in ("litert", "openvino") for batch in (1, 16)
        }
        assert all(t["p50_ms"] > 0 for t in row["latency"])
    assert reference["engines"]["openvino"]["agreement"] == 1
    assert reference["engines"]["openvino"]["worst_change"] < 1e-4
    assert int8["engines"]["openvino"]["agreement"] > 0.98
    assert int8["engines"]["openvino"]["worst_change"] < 0.1
    assert int8["operators"]["float_outputs"] == ()
    assert int16["operators"]["by_type"]["int16"] > 5


def test_the_page_stands_alone(report):
    page = report_page(report)
    assert page.count("<svg") == 1
    assert re.findall(r'(?:src|href)="(?!#)[^"]*', page) == []
    for row in report["rows"][1:]:
        assert row["verdict"] in page.replace("&#x27;", "'")
    assert "Ranges" not in page
    row = RangeRow("stage1_conv", -1.0, 1.0, 0.01, -0.9, 2.5, 0.125)
    figures = "".join(f'<td class="number">{cell}</td>' for cell in ("-1", "1", "0.01", "-0.9", "2.5", "12.500"))
    assert f"<td>stage1_conv</td>{figures}" in report_page(report, [row])
    ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


REFERENCE = {"method": "float", "bytes": 400, "gzip_bytes": 360, "top1": 0.98, "speedup": 1.0}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ((100, 90, 0.98, 0.5), "m is 4.0× smaller, but 2.0× slower and keeps the accuracy: use it where bytes count."),
        (
            (100, 30, 0.98, 2.0),
            "m is 4.0× smaller (12.0× gzipped) and 2.0× faster here and keeps the accuracy: use it.",
        ),
        ((100, 90, 0.9795, 1.0), "m is 4.0× smaller, no faster and keeps the accuracy: use it where bytes count."),
        ((100, 90, 0.95, 9.0), "m costs 3.0 points of top-1: leave it."),
        ((400, 350, 0.98, 1.0), "m saves neither bytes nor time here: leave it."),
        ((400, 350, 0.975, 2.0), "m is 2.0× faster here for 0.5 points of top-1: use it."),
    ],
)
def test_verdicts_follow_the_figures(row, sentence):
    keys = ("bytes", "gzip_bytes", "top1", "speedup")
    assert verdict({"method": "m", **dict(zip(keys, row, strict=True))}, REFERENCE, 1000) == sentence


def test_two_pictures_are_no_loss():
    row = {"method": "qat", "bytes": 100, "gzip_bytes": 90, "top1": 145 / 153, "speedup": 2.0}
    assert "keeps the accuracy: use it" in verdict(row, REFERENCE | {"top1": 147 / 153}, 153)


def test_what_rounds_do_not_agree_on_is_not_claimed():
    row = {"method": "m", "bytes": 100, "gzip_bytes": 90, "top1": 0.98, "speedup": 1.9}
    assert "1.9× faster" in verdict(row | {"speedup_range": [1.2, 2.4]}, REFERENCE, 1000)
    assert "no faster" in verdict(row | {"speedup_range": [0.7, 4.0]}, REFERENCE, 1000)


@pytest.mark.parametrize(
    ("method", "advice", "no_advice"),
    [
        ("int8", "train on with qat, or keep the worst layers in float (--keep-worst)", "--sparsity"),
        ("prune", "ask for fewer zeros (--sparsity) or train longer (--epochs)", "float"),
        ("cluster", "allow more values (--clusters) or train longer (--epochs)", "float"),
        ("prune+int8", "ask for fewer zeros (--sparsity) or train longer (--epochs); train on with qat", "--clusters"),
        ("qat", "train longer (--epochs), or keep the worst layers in float (--keep-worst)", "with qat"),
    ],
)
def test_each_method_gets_its_own_advice(method, advice, no_advice):
    row = {"method": method, "bytes": 100, "gzip_bytes": 90, "top1": 0.9, "speedup": 1.0}
    sentence = verdict(row, REFERENCE, 1000)
    assert advice in sentence
    assert no_advice not in sentence


class Slow:
    """An engine that takes as many milliseconds as its clock says, and whose clock others move too."""

    clock = 0.0
    load = 1.0

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        Slow.clock += Slow.load * self.milliseconds * len(pixels) / 1e3
        return np.full((len(pixels), 3), 1 / 3)


@pytest.mark.parametrize("loads", [[1.0], [1.0, 5.0, 2.0, 9.0, 3.0]])
def test_load_falls_on_all_forms_alike(lenet_files, monkeypatch, loads):
    """The machine gets up to nine times slower from one round to the next, and the ratio stays what it is."""
    from toolkit.compress import report

    Slow.clock, rounds = 0.0, iter(range(10_000))

    def seconds(engine, pixels, calls):
        Slow.load = loads[next(rounds) // 2 % len(loads)]  # two forms a round
        start = Slow.clock
        engine.probabilities(pixels)
        return Slow.clock - start

    monkeypatch.setattr(report, "_seconds", seconds)
    monkeypatch.setattr(report.time, "perf_counter", lambda: Slow.clock)
    monkeypatch.setattr(report, "processor_share", lambda: 1.0)
    answers = {"litert": np.eye(3)}
    forms = {
        "float": report.Form(lenet_files["dynamic"], {"litert": Slow(400.0)}, answers),
        "int8": report.Form(lenet_files["int8"], {"litert": Slow(100.0)}, answers),
    }
    measured = report.report_on("net", forms, np.arange(3), layers=["head_logits"], size=(8, 8))
    assert measured["rows"][1]["speedup"] == pytest.approx(4)
    assert measured["timing"]["busy"] == (len(loads) > 1)
    assert ("busy" in report.timing_note(measured["timing"])) == (len(loads) > 1)
    assert measured["rows"][0]["top5"] is None  # of three classes, five cannot miss
    assert "top-5" not in report_page(measured)


def test_names_are_neither_formulas_nor_lines(report):
    """Matplotlib takes what stands between dollars for a formula."""
    rows = [row | {"method": name} for row, name in zip(report["rows"], ["$1_to_$5", "a\nb", "<x>"], strict=True)]
    page = report_page(report | {"rows": rows})
    assert "$1_to_$5" in page
    assert "<x>" not in page


def test_the_page_follows_the_readers_colours(report):
    page = report_page(report)
    assert "prefers-color-scheme: dark" in page
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "#000000" not in svg
    assert "fill: #ffffff" not in svg


def test_zeros_are_those_of_the_files(report):
    assert report["rows"][0]["zeros"] == 0
    assert 0 < report["rows"][1]["zeros"] < 0.05  # int8 rounds the smallest to zero


def test_normalised_inputs_are_refused(lenet, lenet_preprocessing):
    floats = (np.zeros((4, 32, 32, 1), np.float32), np.zeros(4, int))
    with pytest.raises(UserError, match="needs pictures as files or uint8 pixels"):
        compression_report(lenet, {}, preprocessing=lenet_preprocessing, evaluation=floats)
