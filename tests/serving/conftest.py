import base64
import contextlib
import io
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from toolkit.serving import ServerOptions


def encoded(seed: int, image_format: str = "PNG", size: tuple[int, int] = (41, 37)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def images():
    """Encoded pictures of several formats and sizes."""
    return [encoded(0), encoded(1, "JPEG", (64, 80)), encoded(2, "BMP"), encoded(3, "PNG", (32, 32))]


@pytest.fixture(scope="session")
def b64():
    """Encoded bytes as the protocol writes them."""
    return lambda data: {"b64": base64.b64encode(data).decode()}


@pytest.fixture
def models_dir(bundle, tmp_path):
    """A fresh copy of the bundle, in a directory of its own."""
    shutil.copytree(bundle, tmp_path / "models" / "digits" / "1")
    return tmp_path / "models"


@pytest.fixture(scope="session")
def running():
    """Run an application by the real server in a thread: ``with running(app, options) as (server, port)``."""

    @contextlib.contextmanager
    def run(app, options=None):
        from toolkit.serving.server import make_server

        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = make_server(app, options or ServerOptions())
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            try:
                yield server, listener.getsockname()[1]
            finally:
                server.should_exit = True
                thread.join(30)
                assert not thread.is_alive()

    return run
