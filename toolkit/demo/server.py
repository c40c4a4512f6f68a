"""The page built and served, with everything shut that a visitor does not need."""

import functools
import importlib.util
import logging
import os
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.machine import bind_address, cannot_listen
from toolkit.progress import step

if TYPE_CHECKING:
    import gradio as gr

    from toolkit.demo.quota import Quota

log = logging.getLogger("toolkit")

#: Bytes that an upload may have: a folder of photographs as a zip file.
MAX_FILE_SIZE = 200_000_000

_PORT = 7860
_TEMPORARY = "GRADIO_TEMP_DIR"  # what Gradio reads the folder of uploads from


@dataclass(frozen=True)
class Access:
    """Doors of the page, open or shut.

    Attributes:
        users: a file with a line ``USER:PASSWORD`` for each visitor who is let in; without one, everybody is.
        mcp: offer the endpoints as tools of an MCP server too, at ``gradio_api/mcp``.
        teach: let visitors teach networks of their own.
        quota: bytes that the files of all visitors may take together: uploads, and what is taught of them.
    """

    users: str | Path | None = None
    mcp: bool = False
    teach: bool = True
    quota: int = 4_000_000_000


def build_demo(
    directory: str | Path = "saved_models", engine: str = "auto", access: Access | None = None
) -> "gr.Blocks":
    """Build the page over every bundle in ``directory``, not yet served.

    Args:
        directory: holds bundles as ``NAME/VERSION``; one bundle's own directory will do too.
        engine: what the page starts with, where a bundle has it: ``auto``, ``recommended`` or an engine's name.
        access: what visitors may do; who is let in is ``launch``'s to see to.

    Raises:
        UserError: Gradio is not installed, there is no bundle, or no bundle can run ``engine``.
    """
    return _build(directory, engine, access or Access())[0]


def _build(directory: str | Path, engine: str, access: Access) -> "tuple[gr.Blocks, Quota]":
    _require_gradio()
    from toolkit.demo.classifier import Classifier
    from toolkit.demo.teaching.school import School

    school = School() if access.teach else None
    classifier = Classifier(directory, engine=engine, visitors=school.network if school else None)
    with _without_proxies():  # Gradio opens its connections to them while it is imported
        from toolkit.demo.page import build_page
        from toolkit.demo.quota import Quota

    quota = Quota(access.quota)
    return build_page(classifier, quota, school), quota


def launch(
    directory: str | Path = "saved_models",
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    engine: str = "auto",
    root_path: str = "",
    access: Access | None = None,
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
        access: who is let in, and how; by default everybody, by the page and its programming interface.
        block: serve until interrupted; otherwise return at once, and ``close()`` on the answer stops the server.

    Raises:
        UserError: see ``build_demo``; or the port is taken, the address is not this machine's, the file of users is
            none, or there is no MCP server.
    """
    doors = _doors(access or Access())
    number, option = (port, "--port") if port is not None else _default_port()
    # Tried first: Gradio calls every failure a taken port, and only looks at the loopback address. It takes 0 for a
    # port, so that the system's choice is told to it.
    with bind_address(host, number, option) as tried:
        number = tried.getsockname()[1]
    with step("opening the page"):
        _require_gradio()
        os.environ[_TEMPORARY] = _uploads()
        demo, quota = _build(directory, engine, access or Access())
        options = launch_options() | doors | {"app_kwargs": _gate(quota)}
        options |= {"root_path": _root_path(root_path), "prevent_thread_lock": True, "quiet": True}
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


def _gate(quota: "Quota") -> dict[str, Any]:
    """Arguments for the server's application: uploads are refused where there is no room."""
    from starlette.middleware import Middleware

    from toolkit.demo.quota import Gate

    return {"middleware": [Middleware(Gate, quota=quota, largest=MAX_FILE_SIZE)]}


def _doors(access: Access) -> dict[str, Any]:
    """Arguments for ``gr.Blocks.launch`` that open doors."""
    users = None if access.users is None else read_users(Path(access.users))
    if access.mcp:
        if users:
            raise UserError(
                "--mcp and --auth exclude each other: the tool server asks nobody for a password; choose one"
            )
        if importlib.util.find_spec("mcp") is None:
            raise UserError("--mcp needs Gradio's tool server, which is not installed: pip install 'gradio[mcp]'")
    return {"auth": users, "mcp_server": access.mcp}


def read_users(path: Path) -> list[tuple[str, str]]:
    """Read a file of lines ``USER:PASSWORD``; empty ones, and those that begin with ``#``, are passed over.

    Raises:
        UserError: it cannot be read, a line is none of these, or nobody is in it. No line is quoted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        is_open = stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        raise UserError(f"{path}: cannot read the users from it ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8; expected a line USER:PASSWORD for each visitor") from None
    users: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not (name.strip() and colon and password):
            raise UserError(f"{path}, line {number}: expected USER:PASSWORD")
        if name in users:
            raise UserError(f"{path}, line {number}: a second password for {name!r}; leave one of them out")
        users[name] = password
    if not users:
        raise UserError(f"{path}: nobody in it; expected a line USER:PASSWORD for each visitor")
    if is_open:
        log.warning("%s: others on this machine can read the passwords; chmod 600 %s", path, path)
    return list(users.items())


def _require_gradio() -> None:
    # Gradio reads these when it is imported or launched. Nothing about visitors leaves this machine.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    # A summary of the last ten thousand events, which nobody sees here, would be made anew after each.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
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
