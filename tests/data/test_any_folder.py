"""Folders drawn at random, of hostile names, formats, sizes, links and splits: each is read, or refused in one line.

Whatever is in them, what was read and what was left out is all that is there.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from any_folders import FILES, LINKS, OPTIONS, write
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data import Source, scan_folder, split_folder
from toolkit.data.doctor import examine_folder
from toolkit.data.scan.quarantine import write_quarantine
from toolkit.errors import UserError, one_line


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


@settings(max_examples=40, derandomize=True, **OPTIONS)
@given(FILES, LINKS, st.booleans())
def test_any_folder_is_accounted_for_or_refused_in_one_line(files, links, enough):
    check(files, links, enough)


@pytest.mark.slow
@settings(max_examples=500, **OPTIONS)
@given(FILES, LINKS, st.booleans())
def test_many_folders_are_accounted_for_or_refused_in_one_line(files, links, enough):
    check(files, links, enough)


@settings(max_examples=3, derandomize=True, **OPTIONS)
@given(FILES, st.just([]), st.just(True))
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
