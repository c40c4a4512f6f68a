"""The digits' bundle in two versions, and the page served over it once for all tests here."""

import importlib.util
import io
import os
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(scope="session", autouse=True)
def upload_folder(tmp_path_factory) -> Iterator[Path]:
    """The folder in which Gradio keeps uploads: gone with the tests."""
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


@pytest.fixture(scope="session")
def client(served):
    """The page's programming interface."""
    from gradio_client import Client

    return Client(served, verbose=False)


@pytest.fixture(scope="session")
def page(bundles):
    """Handlers of tab Classify; tests of another tab have a ``page`` of their own."""
    from toolkit.demo.classifier import Classifier
    from toolkit.demo.tabs.classify import Classify

    return Classify(Classifier(bundles))


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium; without one these tests are skipped, or fail where ``TOOLKIT_REQUIRE_BROWSER`` is 1."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None or importlib.util.find_spec("playwright") is None:
        missing = "no chromium in PATH" if path is None else "playwright is not installed"
        if os.environ.get("TOOLKIT_REQUIRE_BROWSER") == "1":
            pytest.fail(f"TOOLKIT_REQUIRE_BROWSER=1, but {missing}")
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def visitor(browser, served) -> Iterator[Any]:
    """The page of a fresh visitor. At the end: no errors on the console, and nothing asked of any other host."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(30_000)
    urls: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served)
    yield page
    context.close()
    assert errors == []
    assert {urlsplit(url).hostname for url in urls if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return _free_port()


@pytest.fixture
def sent(upload_folder) -> Callable[[Path], dict[str, str]]:
    """Copy a file to where uploads lie, and name it as the browser does."""
    return lambda path: {"path": str(shutil.copy(path, upload_folder / path.name)), "orig_name": path.name}


@pytest.fixture(scope="session")
def zipped() -> Callable[[dict[str, bytes]], bytes]:
    """Make a zip file of members by name."""

    def make(members: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return buffer.getvalue()

    return make


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
    return {"text": text, "truncated": truncated, "huge": huge, "whole": tmp_path / "whole.jpg"}


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
