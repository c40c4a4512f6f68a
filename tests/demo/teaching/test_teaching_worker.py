"""The process that teaches, on a network that comes along."""

import csv
import json

from toolkit.bundle import find_bundle, read_manifest
from toolkit.demo.teaching.worker import _teach


def test_a_lesson_starts_from_a_bundle(make_folder, tmp_path):
    pictures = make_folder(tmp_path / "pictures", {"red": 8, "blue": 8})
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = ((str(path), path.parent.name) for path in sorted(pictures.rglob("*.*")))
        csv.writer(file).writerows([("path", "label"), *rows])
    bundle = find_bundle("resnet20-cifar10", shipped=True)
    backbone = {"bundle": str(bundle), "network": None, "weights": None}
    told = []
    _teach(tmp_path, {"backbone": backbone, "table": str(tmp_path / "table.csv"), "report": False}, told.append)
    (judged,) = [event for event in told if event["event"] == "judged"]
    assert judged["classes"] == ["blue", "red"]
    (taught,) = tmp_path.rglob("manifest.json")
    assert read_manifest(taught.parents[1]).preprocessing == read_manifest(bundle).preprocessing
    assert json.loads(taught.read_text())["labels"] == ["blue", "red"]
