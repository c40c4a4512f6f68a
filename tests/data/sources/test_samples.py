import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from toolkit.data.sources.samples import write_samples
from toolkit.errors import UserError


def test_all_1797_digits_are_written_as_their_class_says(digits):
    source = load_digits()
    paths = sorted(digits.rglob("*.png"), key=lambda path: path.name)
    assert len(paths) == len(source.target) == 1797
    assert [int(path.parent.name) for path in paths] == source.target.tolist()
    for index in (0, 17, 1796):
        pixels = np.asarray(Image.open(paths[index]))
        np.testing.assert_array_equal(pixels, np.rint(source.images[index] * 255 / 16))
    assert sorted(path.name for path in digits.iterdir()) == list("0123456789")


def test_photographs_come_whole_with_their_sources(tmp_path):
    num_written = write_samples("photographs", tmp_path / "photographs")
    pictures = {path.name: path for path in (tmp_path / "photographs").glob("*.jpg")}
    assert {"china.jpg", "flower.jpg"} <= set(pictures)
    assert num_written == len(pictures)
    assert pictures["china.jpg"].read_bytes() == Path(load_sample_images().filenames[0]).read_bytes()
    for path in pictures.values():
        Image.open(path).convert("RGB").load()
    sources = (tmp_path / "photographs" / "SOURCES.txt").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in sources) == sorted(pictures)


def test_empty_folder_is_filled_and_its_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_samples("digits", tmp_path / "empty") == 1797
    assert len(list((tmp_path / "empty").rglob("*.png"))) == 1797
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("content", ["file", "hidden", "is a file"])
def test_folder_with_something_in_it_is_refused_and_untouched(tmp_path, content):
    target = tmp_path / "mine"
    if content == "is a file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / (".keep" if content == "hidden" else "notes.txt")).write_text("precious")
    with pytest.raises(UserError, match=r"(not empty|is a file); name a new folder"):
        write_samples("digits", target)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


def test_unknown_samples_are_named(tmp_path):
    with pytest.raises(UserError, match="unknown samples 'letters'; known: digits, photographs"):
        write_samples("letters", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_current_folder_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="name a new folder"):
        write_samples("digits", ".")


def test_killed_half_way_it_leaves_no_folder_of_that_name(tmp_path):
    script = "import sys; from toolkit.data.sources.samples import write_samples; write_samples('digits', sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "digits")])
    deadline = time.monotonic() + 30
    while not any(tmp_path.glob(".partial-*/*/*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "digits").exists() or len(list((tmp_path / "digits").rglob("*.png"))) == 1797
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".partial-") or left.name == "digits"
    write_samples("digits", tmp_path / "again")
    assert not any(tmp_path.glob(".partial-*"))
