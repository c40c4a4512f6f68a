"""The page built and served, with everything shut that a visitor does not need."""

import functools
import importlib.util
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.machine import bind_address, cannot_listen
from toolkit.progress import step

if TYPE_CHECKING:
    import gradio as gr

#: Larger uploads are refused while they arrive.
MAX_FILE_SIZE = "20mb"

_PORT = 7860
_TEMPORARY = "GRADIO_TEMP_DIR"  # what Gradio reads the folder of uploads from


def build_demo(directory: str | Path = "saved_models", engine: str = "auto") -> "gr.Blocks":
    """Build the page over every bundle in ``directory``, not yet served.

    Args:
        directory: holds bundles as ``NAME/VERSION``; one bundle's own directory will do too.
        engine: what the page starts with, where a bundle has it: ``auto``, ``recommended`` or an engine's name.

    Raises:
        UserError: Gradio is not installed, there is no bundle, or no bundle can run ``engine``.
    """
    _require_gradio()
    from toolkit.demo.classifier import Classifier

    classifier = Classifier(directory, engine=engine)
    with _without_proxies():  # Gradio opens its connections to them while it is imported
        from toolkit.demo.page import build_page

    return build_page(classifier)


def launch(
    directory: str | Path = "saved_models",
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    engine: str = "auto",
    root_path: str = "",
    block: bool = True,
) -> "gr.Blocks":
    """Serve the page.

    Uploads lie in a folder that only this user can read, or in ``$GRADIO_TEMP_DIR``; it goes when the process ends.

    Args:
        directory: holds bundles as ``NAME/VERSION``.
        host: address to listen on; ``0.0.0.0`` lets other machines in.
        port: port to listen on, 0 for any that is free; by default ``$PORT``, or 7860.
        engine: see ``build_demo``.
        root_path: where a reverse proxy puts the page, such as ``/classify``.
        block: serve until interrupted; otherwise return at once, and ``close()`` on the answer stops the server.

    Raises:
        UserError: see ``build_demo``; or the port is taken, or the address is not this machine's.
    """
    number, option = (port, "--port") if port is not None else _default_port()
    # Tried first: Gradio calls every failure a taken port, and only looks at the loopback address. It takes 0 for a
    # port, so that the system's choice is told to it.
    with bind_address(host, number, option) as tried:
        number = tried.getsockname()[1]
    with step("opening the page"):
        _require_gradio()
        os.environ[_TEMPORARY] = _uploads()
        demo = build_demo(directory, engine)
        options = launch_options() | {"root_path": _root_path(root_path), "prevent_thread_lock": True, "quiet": True}
        try:
            with _without_proxies():  # it asks itself whether it runs
                demo.launch(server_name=host, server_port=number, **options)
        except OSError as error:
            raise cannot_listen(error, host, number, option) from None  # another process was quicker
    print(f"demo at {demo.local_url} (Ctrl+C stops it)", file=sys.stderr)
    if block:
        _serve_until_stopped(demo)
    return demo


def launch_options() -> dict[str, Any]:
    """Arguments for ``gr.Blocks.launch``: the page's looks, and its doors shut."""
    from toolkit.demo.tabs.shared import ON_LOAD_JS, STYLES, theme

    return {
        "share": False,
        "max_file_size": MAX_FILE_SIZE,
        "allowed_paths": [],
        # Messages meant for visitors are shown all the same; anything unforeseen stays in the server's log.
        "show_error": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "inline": False,
        "footer_links": ["api"],
        "theme": theme(),
        "css_paths": STYLES,
        "js": ON_LOAD_JS,
    }


def _require_gradio() -> None:
    # Gradio reads these when it is imported or launched. Nothing about visitors leaves this machine.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs gradio, which is not installed: pip install 'toolkit[demo]'")


def _default_port() -> tuple[int, str]:
    """Take the port from the environment, and tell what to choose another with."""
    given = os.environ.get("PORT")
    if not given:
        return _PORT, "--port"
    if not given.isdecimal():
        raise UserError(f"PORT must be a number from 0 to 65535, got {given!r}")
    return int(given), "PORT="


def _root_path(given: str) -> str | None:
    """Write a path as Gradio compares it, ``/classify``; None where ``$GRADIO_ROOT_PATH`` may say it."""
    return given.rstrip("/") if "://" in given else f"/{given.strip('/')}" if given.strip("/") else None


def _uploads() -> str:
    """Name the folder of uploads.

    Gradio's own, ``gradio`` in the system's temporary folder, is shared: it may be another user's, and readable by all.
    """
    chosen = os.environ.get(_TEMPORARY)
    if not chosen:
        return _private_folder().name
    try:
        Path(chosen).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen):
            return chosen
    except OSError as error:
        raise UserError(f"{chosen}: cannot keep uploads ({error.strerror}); choose another by {_TEMPORARY}") from None


@functools.cache
def _private_folder() -> "tempfile.TemporaryDirectory[str]":
    """Make this process a temporary folder, mode 0700, which is removed at its end."""
    try:
        return tempfile.TemporaryDirectory(prefix="toolkit-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = error.strerror or "there is no writable folder for temporary files"
        raise UserError(f"cannot keep uploads ({reason}); name a folder by TMPDIR or {_TEMPORARY}") from None


@contextmanager
def _without_proxies() -> Iterator[None]:
    """Have nothing sent through a proxy: Gradio only talks to itself, and a proxy does not know this machine."""
    kept = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        if kept is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = kept


def _serve_until_stopped(demo: "gr.Blocks") -> None:
    """Wait for Ctrl+C or SIGTERM, then stop the server and leave nothing behind."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    try:
        while demo.is_running:
            time.sleep(0.1)
    except KeyboardInterrupt:
        demo.close(verbose=False)
