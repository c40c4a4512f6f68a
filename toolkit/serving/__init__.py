"""Bundles behind HTTP and gRPC, in several protocols, a module each. Importing this imports no framework."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.serving.options import ServerOptions

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["ServerOptions", "create_app", "serve"]

_NEEDED = ("starlette", "uvicorn", "orjson", "prometheus_client", "python_multipart")


def create_app(directory: str | Path, engine: str = "auto", options: ServerOptions | None = None) -> "Starlette":
    """Create an ASGI application over every bundle below ``directory``; each is loaded when first asked for.

    Args:
        directory: holds ``NAME/VERSION`` bundles, or is itself one bundle with its versions.
        engine: as in ``Predictor.load``.
        options: limits; those of workers, connections and TLS are for whoever runs the application.

    Raises:
        UserError: no bundles there, no such engine, or the extra ``serve`` is not installed.
    """
    _require(*_NEEDED)
    from toolkit.serving.app import build_app
    from toolkit.serving.models import ModelTable

    return build_app(ModelTable(directory, engine), options)


def serve(
    directory: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    engine: str = "auto",
    options: ServerOptions | None = None,
) -> None:
    """Serve every bundle below ``directory`` until SIGINT or SIGTERM.

    The newest version of each is loaded and warmed before the first answer; one that fails to load is logged and
    reported by its status, and the rest are served.

    Args:
        directory: as in ``create_app``.
        host: address to listen on; ``0.0.0.0`` for every interface.
        port: 0 takes any free one, which the log names.
        engine: as in ``Predictor.load``.
        options: limits, and how the server is run.

    Raises:
        UserError: as ``create_app``, or the address cannot be listened on.
    """
    _require(*_NEEDED)
    from toolkit.serving.models import ModelTable
    from toolkit.serving.server import run_server

    options = options or ServerOptions()
    if options.grpc_port is not None:
        _require("grpc", "google.protobuf")
    run_server(ModelTable(directory, engine), host=host, port=port, options=options)


def _require(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}, not installed: pip install 'toolkit[serve]'")
