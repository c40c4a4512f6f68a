"""Licences of the weights that a training begins with."""

import hashlib
from dataclasses import replace

import pytest

from toolkit import model_info
from toolkit.bundle import read_manifest, write_manifest
from toolkit.factory import licence, licence_of
from toolkit.weights.download import hash_file


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [("vgg16", "imagenet", "BSD-3-Clause"), ("googlenet", "imagenet", "unrestricted use"), ("lenet5", "nowhere", "")],
)
def test_licence_of_published_weights(name, weights, expected):
    assert licence_of(name, weights) == expected


def test_licence_of_a_file_is_known_by_its_digest(tmp_path, monkeypatch):
    file = tmp_path / "renamed.bin"
    file.write_bytes(b"weights")
    weights = model_info("vgg16").weights
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    monkeypatch.setitem(weights, "mine", replace(weights["imagenet"], digest=digest, licence="MIT"))
    monkeypatch.setitem(weights, "more", replace(weights["imagenet"], digest=f"sha256:{'0' * 64}"))
    read = []
    monkeypatch.setattr(licence, "hash_file", lambda *each: read.append(each) or hash_file(*each))
    assert licence_of("vgg16", file) == "MIT"
    assert len(read) == len(set(read))  # once by an algorithm, however many weights are published
    file.write_bytes(b"others")
    assert licence_of("vgg16", file) == ""


def test_licence_goes_on_from_bundle_to_bundle(bundle_copy):
    assert licence_of("lenet5", bundle_copy) == ""
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), licence="MIT"))
    assert licence_of("lenet5", bundle_copy.parent) == "MIT"
