"""Pictures that look like no other, and lessons that are over at once."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.demo.teaching import lesson as lessons

# Stands for the worker where nothing has to be learned: as quick as Python starts, it passes the digits' bundle on.
_QUICK = """
import csv, json, os, shutil, sys, time
folder = sys.argv[1]
tell = lambda event, **rest: print(json.dumps({"event": event, **rest}), flush=True)
table = json.load(open(folder + "/lesson.json"))["table"]
rows = list(csv.DictReader(open(table, encoding="utf-8")))
names = sorted({row["label"] for row in rows})
tell("begin", number=1, label="computing features", total=len(rows))
tell("update", number=1, done=len(rows), total=None)
if "sleep" in names:
    time.sleep(60)
tell("end", number=1)
wrong = {"file": rows[0]["path"], "is": rows[0]["label"], "called": names[-1], "sure": 0.9, "margin": 0.8}
matrix = [[int(a == b) for b in range(len(names))] for a in range(len(names))]
matrix[0][-1] = 1
tell("judged", classes=names, accuracy=0.75, standard_error=0.1, n=len(rows), matrix=matrix, mistakes=[wrong])
shutil.copytree(BUNDLE, folder + "/saved_models/taught/1")
open(folder + "/report.html", "w").write("<h1>A report</h1>")
"""


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Make smooth pictures, a different one for each seed."""

    def make(seed: int, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def quick_lessons(bundle, monkeypatch) -> None:
    """Let lessons be over at once; one with a class called ``sleep`` takes a minute."""
    monkeypatch.setattr(lessons, "WORKER", ("-c", _QUICK.replace("BUNDLE", repr(str(bundle)))))


@pytest.fixture
def digits_zip(digits, zipped, tmp_path) -> Path:
    """Twenty pictures each of three digits, in class folders."""
    members = {
        f"{label}/{path.name}": path.read_bytes()
        for label in ("3", "5", "8")
        for path in sorted((digits / label).glob("*.png"))[:20]
    }
    file = tmp_path / "digits.zip"
    file.write_bytes(zipped(members))
    return file
