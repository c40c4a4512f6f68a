"""Copies of photographs are found whatever was done to them, and different ones are told apart, at scale."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from toolkit.data.scan.duplicates import MAX_DISTANCE, equal_groups, linked_groups, near_pairs
from toolkit.data.scan.facts import FACTS, picture_facts


def png(image) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def facts_of(pictures: list[bytes]) -> np.ndarray:
    return np.array([picture_facts(data, "x") for data in pictures])


def near_groups(facts: np.ndarray) -> list[np.ndarray]:
    return linked_groups(near_pairs(facts)[0], len(facts))


def as_lists(groups) -> list[list[int]]:
    return [group.tolist() for group in groups]


CHANGES = {
    "compressed": lambda image: jpeg(image, 30),
    "halved": lambda image: png(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)),
    "brighter": lambda image: png(ImageEnhance.Brightness(image).enhance(1.15)),
    "grey": lambda image: png(image.convert("L")),
    "trimmed": lambda image: png(image.crop((1, 1, image.width - 1, image.height - 1))),
    "noisy": lambda image: png(
        np.clip(np.asarray(image) + np.random.default_rng(0).normal(0, 6, np.asarray(image).shape), 0, 255).astype(
            np.uint8
        )
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_photographs_are_found_and_nothing_else(photographs, change):
    originals = [Image.fromarray(view) for view in photographs]
    facts = facts_of([png(image) for image in originals] + [CHANGES[change](image) for image in originals])
    count = len(originals)
    found = as_lists(near_groups(facts))
    right = [[i, i + count] for i in range(count)]
    assert [group for group in found if group not in right] == []
    assert len(found) >= 0.95 * count


def test_equal_bytes_are_one_picture_for_the_likeness(photographs):
    a, b = png(photographs[0]), png(photographs[1])
    facts = facts_of([a, b, a, b, a])
    assert as_lists(equal_groups(facts)) == [[0, 2, 4], [1, 3]]
    assert near_groups(facts) == []


def test_digits_and_plain_pictures_are_not_alike():
    from sklearn.datasets import load_digits

    digits = np.repeat(np.repeat(load_digits().images[:600] * 15.9, 3, axis=1), 3, axis=2).astype(np.uint8)
    assert len(near_groups(facts_of([png(digit) for digit in digits]))) <= 2  # of 179,700 pairs
    plain = [png(Image.new("RGB", (20 + n, 20), (10 * n, 0, 0))) for n in range(20)]
    assert near_groups(facts_of(plain)) == []


@pytest.fixture(scope="module")
def many():
    """50,000 random hashes, of which 2,000 have a copy that differs in four to twelve bits."""
    rng = np.random.default_rng(0)
    facts = np.zeros(50_000, FACTS)
    facts["digest"][:, 0] = np.arange(len(facts))
    facts["height"] = facts["width"] = 100
    bits = rng.integers(0, 2, (len(facts), 256), np.uint8)
    for copy in range(2_000):
        bits[-1 - copy] = bits[copy]
        bits[-1 - copy, rng.choice(256, rng.integers(4, 13), replace=False)] ^= 1
    facts["phash"] = np.packbits(bits, axis=1).view(np.uint64)
    return facts


def test_fifty_thousand_pictures_take_seconds(many):
    started = time.process_time()
    groups = near_groups(many)
    assert time.process_time() - started < 15
    assert {(group[0], group[-1]) for group in groups} <= {(i, len(many) - 1 - i) for i in range(2_000)}
    assert len(groups) > 0.97 * 2_000


@pytest.mark.slow
def test_row_of_like_pictures_is_one_group_and_takes_no_quadratic_time(many):
    frames = many[:20_000].copy()
    rng = np.random.default_rng(1)
    bits = np.tile(rng.integers(0, 2, 256, np.uint8), (len(frames), 1))
    bits[np.arange(len(frames)), rng.integers(0, 256, len(frames))] ^= 1
    frames["phash"] = np.packbits(bits, axis=1).view(np.uint64)
    started = time.process_time()
    groups = near_groups(frames)
    assert time.process_time() - started < 15
    assert [len(group) for group in groups] == [len(frames)]


def test_distance_decides_and_not_the_table(many):
    pair = many[:2].copy()
    for distance, alike in ((MAX_DISTANCE, True), (MAX_DISTANCE + 1, False)):
        bits = np.unpackbits(pair["phash"][0].view(np.uint8))
        bits[-distance:] ^= 1  # the highest frequencies, of which the tables know nothing
        pair["phash"][1] = np.packbits(bits).view(np.uint64)
        assert bool(near_groups(pair)) == alike
