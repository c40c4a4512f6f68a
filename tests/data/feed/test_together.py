"""Copies and look-alikes stay on one side of a computed split, and the sides keep their sizes."""

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data import ImageFolder, scan_folder, split_folder
from toolkit.data.doctor import examine_folder
from toolkit.data.feed.split import divide_folder, repeats_remarks
from toolkit.data.feed.together import find_lots
from toolkit.data.scan.facts import FACTS
from toolkit.errors import UserError


def sides(folder) -> dict[str, str]:
    return {path: name for name, paths in split_folder(folder).as_dict(folder.root).items() for path in paths}


def made(hashes: np.ndarray, labels: list[int], digests=None) -> ImageFolder:
    """A folder of nothing but facts: 256 bits for each picture."""
    facts = np.zeros(len(labels), FACTS)
    facts["digest"][:, 0] = np.arange(len(labels)) if digests is None else digests
    facts["height"] = facts["width"] = 100
    facts["phash"] = np.packbits(hashes, axis=1).view(np.uint64)
    paths = tuple(f"{index:05d}.png" for index in range(len(labels)))
    names = tuple(map(str, range(max(labels) + 1)))
    return ImageFolder(Path("root"), names, paths, tuple(labels), facts=facts)


def random_bits(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (count, 256), np.uint8)


@pytest.fixture
def doubled(photographs, tmp_path):
    """Twenty photographs in each of two classes, with a copy of each and a small, recompressed version of each."""
    for name, views in (("a", photographs[:20]), ("b", photographs[20:40])):
        (tmp_path / name).mkdir()
        for index, view in enumerate(views):
            image = Image.fromarray(view)
            image.save(tmp_path / name / f"{index:02d}.png")
            image.resize((160, 128)).save(tmp_path / name / f"{index:02d}-small.jpg", quality=90)
            shutil.copy(tmp_path / name / f"{index:02d}.png", tmp_path / name / f"z copy of {index:02d}.png")
    return scan_folder(tmp_path)


def test_copies_and_look_alikes_are_on_one_side(doubled, caplog):
    with caplog.at_level(logging.INFO, "toolkit"):
        found = sides(doubled)
    names = [f"{name}/{{}}{index:02d}{{}}" for name in ("a", "b") for index in range(20)]
    assert all(found[name.format("", ".png")] == found[name.format("z copy of ", ".png")] for name in names)
    # One photograph is mostly sky, and the likeness of such pictures has to be closer.
    assert sum(found[name.format("", ".png")] != found[name.format("", "-small.jpg")] for name in names) <= 1
    sizes = {side: list(found.values()).count(side) for side in ("train", "val", "test")}
    assert sizes == pytest.approx({"train": 72, "val": 24, "test": 24}, abs=6)
    assert "119 pictures are copies or look-alikes of others: each lot is in one subset" in caplog.text


def test_check_says_how_many_stay_together(doubled):
    assert any("119 pictures are copies or look-alikes" in text for text in examine_folder(doubled)["warnings"])


def test_split_is_the_same_each_time_and_elsewhere(doubled, tmp_path):
    elsewhere = shutil.copytree(doubled.root, tmp_path / "elsewhere" / "pets")
    assert sides(scan_folder(elsewhere)) == sides(doubled) == sides(doubled)


def test_without_copies_the_split_is_that_of_the_classes_alone():
    labels = [0] * 50 + [1] * 17
    folder = made(random_bits(67), labels)
    plain = ImageFolder(folder.root, folder.class_names, folder.paths, folder.labels)
    assert split_folder(folder) == split_folder(plain)


def test_copies_in_the_training_pictures_stay_together_where_val_is_taken_from_them():
    folder = made(random_bits(40), [0, 1] * 20, digests=np.arange(40) // 4)
    given = ImageFolder(**{**vars(folder), "splits": ("train",) * 32 + ("test",) * 8})
    split = split_folder(given)
    assert len(split.test) == 8
    lot = {str((folder.root / path).absolute()): index // 4 for index, path in enumerate(folder.paths)}
    assert not {lot[path] for path in split.train.paths} & {lot[path] for path in split.val.paths}


def test_frames_of_a_film_do_not_become_one_lot_nor_leave_a_class_without_pictures():
    bits = random_bits(1_000)
    for index in range(1, 400):  # each frame differs from the one before in six bits
        bits[index] = bits[index - 1]
        bits[index, np.random.default_rng(index).choice(256, 6, replace=False)] ^= 1
    folder = made(bits, [0] * 400 + [1] * 600)
    split, lots = divide_folder(folder)
    assert lots.num_parted > 0
    shares = [np.bincount(subset.labels, minlength=2) / [400, 600] for subset in (split.train, split.val, split.test)]
    np.testing.assert_allclose(shares, [[0.6, 0.6], [0.2, 0.2], [0.2, 0.2]], atol=0.05)


def test_class_of_look_alikes_only_is_split_all_the_same_and_said():
    bits = random_bits(30)
    bits[:10] = bits[0]
    bits[np.arange(10), np.arange(10)] ^= 1
    split, lots = divide_folder(made(bits, [0] * 10 + [1] * 20))
    assert [subset.labels.count(0) for subset in (split.train, split.val, split.test)] == [6, 2, 2]
    assert lots.num_parted == 10


def test_class_of_one_picture_and_its_copies_cannot_be_split():
    folder = made(random_bits(30), [0] * 10 + [1] * 20, digests=[0] * 10 + list(range(1, 21)))
    with pytest.raises(UserError, match="class '0' has 10 readable pictures, of which 9 repeat others; at least 3"):
        split_folder(folder)


def test_groups_and_copies_join_into_one_lot():
    folder = made(random_bits(6), [0] * 6, digests=[0, 1, 1, 2, 3, 4])
    grouped = ImageFolder(**{**vars(folder), "groups": ("g", "g", "", "", "", "")})
    assert find_lots(grouped, np.arange(6), 3).lot_of.tolist() == [0, 0, 0, 1, 2, 3]


def test_fifty_thousand_pictures_with_copies_take_seconds():
    bits = random_bits(50_000)
    bits[25_000:] = bits[:25_000]
    bits[25_000:, :4] ^= 1
    folder = made(bits, [index % 50 for index in range(50_000)])
    started = time.process_time()
    split, lots = divide_folder(folder)
    assert time.process_time() - started < 30
    assert lots.num_copies == 50_000
    own = {path: index for index, subset in enumerate((split.train, split.val, split.test)) for path in subset.paths}
    paths = [str((folder.root / path).absolute()) for path in folder.paths]
    assert all(own[a] == own[b] for a, b in zip(paths[:25_000], paths[25_000:], strict=True))


def test_test_pictures_that_repeat_what_teaches_are_said():
    bits = random_bits(40)
    bits[35] = bits[0]
    bits[35, :3] ^= 1
    digests = np.arange(40)
    digests[39] = 1
    folder = made(bits, [0, 1] * 20, digests)
    given = ImageFolder(**{**vars(folder), "splits": ("train",) * 20 + ("val",) * 12 + ("test",) * 8})
    (said,) = repeats_remarks(given)
    assert said.startswith("2 of 8 held-out pictures are copies or look-alikes of pictures that teach")
    assert repeats_remarks(folder) == []
    apart = ImageFolder(**{**vars(made(random_bits(40), [0, 1] * 20)), "splits": given.splits})
    assert repeats_remarks(apart, keep_val=True) == []
