"""The digits' bundle in two versions, and the page served over it once for all tests here."""

import shutil
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def upload_folder(tmp_path_factory) -> Iterator[Path]:
    """Where Gradio keeps uploads: gone with the tests."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def bundles(bundle, tmp_path_factory) -> Path:
    """``digits/1`` with every engine and example pictures; ``digits/2``, the same network without int8."""
    root = tmp_path_factory.mktemp("saved_models")
    shutil.copytree(bundle, root / "digits" / "1")
    second = Path(shutil.copytree(bundle, root / "digits" / "2"))
    (second / "assets.extra" / "model.int8.tflite").unlink()
    return root


@pytest.fixture(scope="session")
def served(bundles) -> Iterator[str]:
    """Address of the page, served on loopback."""
    from toolkit.demo import launch

    demo = launch(bundles, port=_free_port(), block=False)
    yield str(demo.local_url)
    demo.close()


@pytest.fixture
def seven(digits) -> Path:
    """A seven that the network knows."""
    return _a_digit(digits, "7")


@pytest.fixture
def bad_files(tmp_path) -> dict[str, Path]:
    """Files that no decoder should trust, by what is wrong with them."""
    text = tmp_path / "letter.jpg"
    text.write_text("Dear network,\n" * 50)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)).save(tmp_path / "whole.jpg")
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    huge = tmp_path / "huge.png"
    huge.write_bytes(_png_header(40_000, 40_000))
    return {"text": text, "truncated": truncated, "huge": huge}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _a_digit(digits: Path, label: str) -> Path:
    return sorted((digits / label).glob("*.png"))[3]


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
