"""Data sets as a notebook and a console show them."""

import re

from toolkit.data import scan_folder


def test_classes_counts_and_splits_are_said(make_folder, tmp_path):
    root = make_folder(tmp_path / "photos", {"train/ant": 3, "train/bee": 2, "val/ant": 1, "val/bee": 1})
    (root / "train" / "ant" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    lines = repr(scan_folder(root)).splitlines()
    assert lines[0] == f"{root}: 7 pictures in 2 classes"
    assert [line.split() for line in lines[1:]] == [
        ["ant", "4", "(train", "3,", "val", "1)"],
        ["bee", "3", "(train", "2,", "val", "1)"],
        ["1", "cannot", "be", "read"],
    ]


def test_pictures_are_shown_and_names_are_no_markup(make_folder, tmp_path):
    shown = scan_folder(make_folder(tmp_path / "photos", {"<b>&amp;": 7, "plain": 2}))._repr_html_()
    assert "&lt;b&gt;&amp;amp;" in shown
    assert "<td>&lt;b" not in shown.replace(' style="text-align:left"', "") or "<b>&amp;" not in shown
    assert len(re.findall(r'src="data:image/jpeg;base64,', shown)) == 5 + 2
    assert "1 cannot be read" not in shown


def test_many_classes_are_not_all_shown(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path / "photos", {f"class {index:02}": 1 for index in range(20)}))
    assert "… and 8 more classes" in repr(folder)
    assert "class 12" not in folder._repr_html_()
    assert "… and 8 more classes" in folder._repr_html_()
