"""Classes whose names look the same are named, and joined on request."""

import unicodedata

import pytest

from toolkit.data import Source, scan_folder, split_folder
from toolkit.data.doctor import examine_folder
from toolkit.errors import UserError

NFC, NFD = unicodedata.normalize("NFC", "Käfer"), unicodedata.normalize("NFD", "Käfer")


@pytest.mark.parametrize(("one", "other"), [("Dog", "dog"), ("dog", "dog "), (NFC, NFD), ("dog", "dog\u200b")])
def test_same_looking_classes_are_named_with_counts_or_joined(make_folder, tmp_path, one, other):
    root = make_folder(tmp_path, {one: 12, other: 11, "cat": 12})
    (warning,) = examine_folder(scan_folder(root))["warnings"]
    assert all(part in warning for part in ("(12)", "(11)", "--join-classes"))
    joined = scan_folder(Source(root, join_classes=True))
    assert joined.class_counts() == {"cat": 12, one: 23}
    assert examine_folder(joined)["warnings"] == []


def test_classes_that_differ_otherwise_are_not_named(make_folder, tmp_path):
    root = make_folder(tmp_path, {"dog": 10, "dogs": 10, "hot dog": 10, "hotdog": 10, "ß": 10, "s": 10})
    assert examine_folder(scan_folder(root))["warnings"] == []


def test_split_on_two_machines(make_folder, tmp_path):
    root = make_folder(tmp_path, {f"train/{NFC}": 3, "train/b": 3, f"val/{NFD}": 2, "val/b": 2})
    with pytest.raises(UserError, match=r"no readable pictures to train on; it looks like .* --join-classes"):
        split_folder(scan_folder(root))
    split = split_folder(scan_folder(Source(root, join_classes=True)))
    assert [len(subset) for subset in (split.train, split.val)] == [6, 4]


def test_joined_classes_take_the_names_that_are_expected(make_folder, tmp_path):
    root = make_folder(tmp_path, {NFD: 2, "Dog": 2})
    with pytest.raises(UserError, match="--join-classes takes it for 'dog'"):
        scan_folder(root, class_names=("dog", NFC))
    assert scan_folder(Source(root, join_classes=True), class_names=("dog", NFC)).labels == (0, 0, 1, 1)
