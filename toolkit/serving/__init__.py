"""Bundles behind TensorFlow Serving's protocols, REST and gRPC. Importing this imports no framework, no web server."""

import contextlib
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["create_app", "serve"]

log = logging.getLogger("toolkit")


def create_app(directory: str | Path, engine: str = "auto") -> "Starlette":
    """Create an ASGI application over every bundle below ``directory``; each is loaded when first asked for.

    Args:
        directory: holds ``NAME/VERSION`` bundles, or is itself one bundle with its versions.
        engine: as in ``Predictor.load``.

    Raises:
        UserError: no bundles there, no such engine, or the extra ``serve`` is not installed.
    """
    _require("starlette")
    from toolkit.serving.app import build_app
    from toolkit.serving.models import ModelTable

    return build_app(ModelTable(directory, engine))


def serve(
    directory: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    grpc_port: int | None = None,
    engine: str = "auto",
) -> None:
    """Serve every bundle below ``directory`` until SIGINT or SIGTERM.

    The newest version of each is loaded and warmed before the first answer; one that fails to load is logged and
    reported by its status, and the rest are served.

    Args:
        directory: as in ``create_app``.
        host: address to listen on; ``0.0.0.0`` for every interface.
        port: 0 takes any free one, which the log names.
        grpc_port: for TensorFlow Serving's gRPC protocol beside it; by default it is not spoken.
        engine: as in ``Predictor.load``.

    Raises:
        UserError: as ``create_app``, or the address cannot be listened on.
    """
    _require("starlette", "uvicorn")
    from toolkit.serving.models import ModelTable
    from toolkit.serving.server import run_server

    table = ModelTable(directory, engine)
    with contextlib.ExitStack() as stack:
        if grpc_port is not None:
            _require("grpc")
            from toolkit.serving.grpc import grpc_server

            bound = stack.enter_context(grpc_server(table, directory, host=host, port=grpc_port))
            log.info("gRPC on %s port %d", host, bound)
        run_server(table, host=host, port=port)


def _require(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}, not installed: pip install 'toolkit[serve]'")
