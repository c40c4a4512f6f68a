"""A file is decoded once in its life: later scans find it by its status or its content, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.pixels.sizes import MAX_FILE_BYTES
from toolkit.data.scan import pictures as scan
from toolkit.data.scan.cache import ScanCache
from toolkit.data.scan.pictures import inspect_files


@pytest.fixture
def files(make_folder, tmp_path) -> list[Path]:
    """Six pictures and a bad one, an hour old."""
    make_folder(tmp_path / "data", {"a": 6})
    (tmp_path / "data/a/bad.png").write_bytes(b"no")
    return sorted((tmp_path / "data/a").iterdir())


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded, with the clock an hour ahead: fresh files are not remembered."""
    names: list[str] = []
    original = scan.picture_facts

    def counting(data, path):
        names.append(Path(path).name)
        return original(data, path)

    monkeypatch.setattr(scan, "picture_facts", counting)
    monkeypatch.setattr(scan.time, "time_ns", lambda: int((time.time() + 3600) * 1e9))
    return names


def look(files: list[Path], directory: Path | None):
    cache = ScanCache(directory)
    facts, reasons = inspect_files(files, cache=cache)
    cache.close()
    return facts, reasons


def test_second_scan_decodes_nothing_and_finds_the_same(files, decoded, tmp_path):
    first, reasons = look(files, tmp_path / "cache")
    assert len(decoded) == 7
    second, again = look(files, tmp_path / "cache")
    assert len(decoded) == 7
    assert np.array_equal(first, second)
    assert reasons == again
    assert [reason is None for reason in reasons] == [True] * 6 + [False]
    assert look(files, None)[0].tobytes() == first.tobytes()
    assert len(decoded) == 14


def test_installing_what_reads_a_picture_is_enough(decoded, tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.heic")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        assert "needs pillow-heif" in look([tmp_path / "a.heic"], tmp_path / "cache")[1][0]
    assert look([tmp_path / "a.heic"], tmp_path / "cache")[1] == [None]


def test_moved_copied_and_touched_files_are_known_by_their_content(files, decoded, tmp_path):
    first, _ = look(files, tmp_path / "cache")
    decoded.clear()
    moved = files[0].rename(tmp_path / "moved.png")
    (tmp_path / "copy.png").write_bytes(files[1].read_bytes())
    os.utime(files[2])
    facts, _ = look([moved, tmp_path / "copy.png", files[2]], tmp_path / "cache")
    assert decoded == []
    assert np.array_equal(facts, first[:3])


def test_changed_file_is_decoded_again_even_with_its_old_time_and_size(files, decoded, tmp_path):
    look(files, tmp_path / "cache")
    decoded.clear()
    status = files[0].stat()
    files[0].write_bytes(b"x" * status.st_size)
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    _, reasons = look(files, tmp_path / "cache")
    assert decoded == ["000.png"]
    assert "not a picture" in reasons[0]


def test_file_of_this_moment_is_not_remembered_for_it_may_change_unseen(files, tmp_path):
    look(files, tmp_path / "cache")
    files[0].write_bytes(b"no longer")
    assert look(files, tmp_path / "cache")[1][0] is not None


def test_damaged_or_unwritable_cache_is_no_hindrance(files, decoded, tmp_path):
    look(files, tmp_path / "cache")
    (database,) = (tmp_path / "cache").glob("*.sqlite")
    for leftover in (tmp_path / "cache").iterdir():
        leftover.unlink()
    database.write_bytes(b"this is no database" * 1000)
    assert look(files, tmp_path / "cache")[1].count(None) == 6
    decoded.clear()
    assert look(files, tmp_path / "cache")[1].count(None) == 6
    assert decoded == []
    (tmp_path / "file").write_text("x")
    assert look(files, tmp_path / "file")[1].count(None) == 6


def test_what_is_no_regular_file_is_not_opened(files, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    names = ("pipe.png", "folder.png", "gone.png")
    _, reasons = look([tmp_path / name for name in names] + files[:1], None)
    assert reasons == ["not a regular file", "not a regular file", "no such file", None]


def test_file_too_large_to_be_a_picture_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert look([tmp_path / "huge.png"], None)[1] == ["larger than 1,024 MiB"]


SCRIPT = """
import sys
from pathlib import Path
from toolkit.data.scan.cache import ScanCache
from toolkit.data.scan.pictures import inspect_files
files = sorted(Path(sys.argv[1]).iterdir())
cache = ScanCache(sys.argv[2])
print("started", flush=True)
facts, reasons = inspect_files(files, cache=cache)
print(len(files), reasons.count(None), facts["phash"].sum())
"""


@pytest.mark.slow
def test_scans_killed_at_any_moment_and_two_at_once_leave_a_sound_cache(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for index in range(1500):
        name = tmp_path / f"data/{index:04d}.bmp"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(name)
    time.sleep(2.1)  # until the files count as settled
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data"), str(tmp_path / "cache")]
    for delay in (0.02, 0.1, 0.2, 0.3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0].splitlines()[-1] for process in both]
    facts, reasons = look(sorted((tmp_path / "data").iterdir()), None)
    assert answers == [f"1500 1500 {facts['phash'].sum()}"] * 2
    assert reasons.count(None) == 1500
