"""Folders drawn at random, of hostile names, formats, sizes, links and splits: each is read, or refused in one line.

Whatever is in them, what was read and what was left out is all that is there.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit.data import Source, scan_folder, split_folder
from toolkit.data.doctor import examine_folder
from toolkit.data.scan.quarantine import write_quarantine
from toolkit.errors import UserError, one_line


def encoded(kind: str, size: tuple[int, int], mode: str) -> bytes:
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


_WHOLE = [
    encoded(kind, size, mode)
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "P", "1", "LA"),
        "JPEG": ("RGB", "L", "CMYK"),
        "GIF": ("P", "L"),
        "BMP": ("RGB", "P"),
        "WEBP": ("RGB",),
        "PPM": ("RGB",),
        "TIFF": ("RGB",),
        "ICO": ("RGBA",),
    }.items()
    for mode in modes
    for size in ((8, 8), (17, 5), (1, 1), (300, 1))
    if kind != "ICO" or size[1] > 1
]
_CONTENTS = st.one_of(
    st.sampled_from(_WHOLE),
    st.builds(lambda data, cut: data[: len(data) - cut], st.sampled_from(_WHOLE), st.integers(1, 40)),
    st.builds(lambda data, tail: data + tail, st.sampled_from(_WHOLE), st.binary(min_size=1, max_size=20)),
    st.binary(max_size=60),
)
_HOSTILE = (
    *(b"$1_to_$5", b"nul", b"-x", b"--help", b"[v1]", b"a*b?", b"line\nbreak", b"tab\there", b" blank ", b"."),
    *(b".NET", b"..x", b"#1", b'"quoted"', b"'", b"back\\slash", b"%s{0}", b"~$x", b"caf\xe9", b"\xff\xfe"),
    *("Käfer".encode(), "Ka\u0308fer".encode(), "犬".encode(), "\u202egpj.exe".encode(), b"x" * 200, b"Dog", b"dog"),
    *(b"@eaDir", b"Thumbs.db", b"__MACOSX", b"._1.png", b"lost+found", b".DS_Store", b"quarantine.txt", b"index"),
)
_SPLITS = (b"train", b"Val", b"testing", b"dev", b"seg_train", b"test_images", b"fold1", b"examples")
_ENDS = (b"", b".png", b".jpg", b".JPEG", b".gif", b".ppm", b".jpg_large", b".txt", b".csv", b".jpg?w=640", b".tif")
_FOLDER_NAMES = st.sampled_from([*_HOSTILE, b"cat", b"bird"])
_STEMS = st.sampled_from([*_HOSTILE, *(b"%d" % number for number in range(5))])
_NAMES = st.builds(lambda stem, end: stem + end, _STEMS, st.sampled_from(_ENDS))
_PATHS = st.builds(
    lambda *parts: b"/".join(part for part in parts if part),
    st.sampled_from([b"", b"", b"data", b"pets/pets"]),
    st.sampled_from([b"", b"", b"", *_SPLITS]),
    st.one_of(st.just(b""), st.sampled_from([b"cat", b"cat", b"bird", b"bird", b"dog"]), _FOLDER_NAMES),
    st.one_of(st.just(b""), st.just(b""), _FOLDER_NAMES),
    _NAMES,
)
_FILES = st.dictionaries(_PATHS, _CONTENTS, max_size=30)
_TARGETS = st.sampled_from([b".", b"..", b"/nowhere", b"cat", b"../cat", b"1.png"])
_LINKS = st.lists(st.tuples(_PATHS, _TARGETS), max_size=3)


def write(root: Path, files: dict[bytes, bytes], links: list[tuple[bytes, bytes]], *, enough: bool) -> None:
    if enough:  # of two classes, so that most folders can be read
        files = files | {b"%s/n%d.png" % (name, i): _WHOLE[i] for name in (b"cat", b"bird") for i in range(3)}
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except OSError:  # a file where a folder should be, or the other way round
            continue
    for name, target in links:
        path = os.path.join(os.fsencode(root), name)
        if os.path.isdir(os.path.dirname(path)) and not os.path.lexists(path):
            os.symlink(target, path)


def all_files(root: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(parent, name), root)
        for parent, _, names in os.walk(root)
        for name in names
        if not os.path.islink(os.path.join(parent, name))
    }


def examine(source: Path) -> None:
    """Scan, split and report as the commands do, holding that every file is accounted for."""
    folder = scan_folder(source)
    told = [path for path, _ in (*folder.problems, *folder.quarantined, *folder.ignored)]
    assert len({*folder.paths, *told}) == len(folder.paths) + len(told)
    missing = all_files(folder.root) - {*folder.paths, *told}
    assert missing == set()
    assert all(reason for _, reason in folder.ignored)
    assert not any(set(name.encode().decode()) & set("\n\r\t") for name in folder.class_names)
    report = json.loads(json.dumps(examine_folder(folder), ensure_ascii=False).encode(errors="backslashreplace"))
    assert report["n"] == len(folder)
    assert all("\n" not in one_line(text) for text in report["warnings"])
    try:
        split = split_folder(folder)
    except UserError as error:
        assert_one_line(error)
        return
    used = [path for subset in (split.train, split.val, split.test) for path in subset.paths]
    assert sorted(used) == sorted(str((folder.root / path).absolute()) for path in folder.paths)
    if not folder.splits:  # a copy is on the side of what it copies
        side: dict[bytes, int] = {}
        for index, subset in enumerate((split.train, split.val, split.test)):
            assert all(side.setdefault(Path(path).read_bytes(), index) == index for path in subset.paths)


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error)


def check(files, links, enough) -> None:
    root = Path(tempfile.mkdtemp()) / "data"
    root.mkdir()
    try:
        write(root, files, links, enough=enough)
        try:
            examine(root)
            folder = scan_folder(root)
            write_quarantine(root.parent / "list", dict(folder.problems) | dict.fromkeys(folder.paths[:2], "why"))
            again = scan_folder(Source(root, join_classes=True), quarantine=root.parent / "list")
            assert {path for path, _ in again.quarantined} == {*dict(folder.problems), *folder.paths[:2]}
        except UserError as error:
            assert_one_line(error)
    finally:
        shutil.rmtree(root.parent)


_OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=40, derandomize=True, **_OPTIONS)
@given(_FILES, _LINKS, st.booleans())
def test_any_folder_is_accounted_for_or_refused_in_one_line(files, links, enough):
    check(files, links, enough)


@pytest.mark.slow
@settings(max_examples=500, **_OPTIONS)
@given(_FILES, _LINKS, st.booleans())
def test_many_folders_are_accounted_for_or_refused_in_one_line(files, links, enough):
    check(files, links, enough)


@settings(max_examples=3, derandomize=True, **_OPTIONS)
@given(_FILES, st.just([]), st.just(True))
def test_check_prints_its_findings_or_one_line(files, links, enough):
    root = Path(tempfile.mkdtemp()) / "data"
    root.mkdir()
    try:
        write(root, files, links, enough=enough)
        command = [sys.executable, "-m", "toolkit", "check", str(root)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode in (0, 2), result.stderr
        assert result.stderr.count("\n") == (result.returncode == 2)
    finally:
        shutil.rmtree(root.parent)
