"""The application run by uvicorn: listen, load, answer, end cleanly."""

import asyncio
import logging
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from toolkit.errors import UserError
from toolkit.machine import bind_address, cannot_listen, limit_arenas
from toolkit.serving.app import build_app
from toolkit.serving.models import ModelTable
from toolkit.serving.operation.logs import configure_logging
from toolkit.serving.operation.workers import on_signals, run_workers
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError

if TYPE_CHECKING:  # as uvicorn declares it: which one it is depends on what is installed
    from asyncio import Protocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger(__name__)

#: A request's headers must have come after so many seconds.
HEADER_SECONDS = 10.0
#: A request's headers must not have more bytes, nor what a connection begins with in their place.
MAX_HEADER_BYTES = 64 << 10
#: Connections that wait to be taken.
BACKLOG = 2048
#: One who has closed his side of a connection is asked so soon, and looked after so often, whether he is there at all.
LEFT_SECONDS = 0.25
#: New versions are looked for so often, so that they are loaded before anyone asks.
WATCH_SECONDS = 1.0


def run_server(table: ModelTable, *, host: str, port: int, options: ServerOptions) -> None:
    """Serve ``table`` until SIGINT or SIGTERM, with the newest version of each bundle loaded beforehand.

    Raises:
        UserError: the address cannot be listened on.
    """
    configure_logging(options)
    if options.grpc_port is not None:  # gRPC says of a failure only that there was one
        bind_address(host, options.grpc_port, "--grpc-port").close()
    # Bound before the models load, so that a port in use is told at once; listening only after, so that nobody
    # connects to a server that is not ready.
    with bind_address(host, port) as listener:
        if options.workers == 1:
            return serve_on(listener, table, host, options)
        port = listener.getsockname()[1]
    return run_workers(_work, (str(table.directory), table.engine), host, port, options)


def serve_on(listener: socket.socket, table: ModelTable, host: str, options: ServerOptions) -> None:
    """Load the bundles, then answer on a bound socket until told to end."""
    limit_arenas()
    port = listener.getsockname()[1]
    server = make_server(build_app(table, options, host), options)
    scheme = "http" if options.tls_cert is None else "https"
    base = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    for name in table.names():
        for version in table.wanted(name):
            _load(table, name, version, base)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise cannot_listen(error, host, port) from None
    ended = threading.Event()
    threading.Thread(target=_watch, args=(table, ended), name="watch bundles", daemon=True).start()
    try:
        # Having shut down, uvicorn raises the signal it caught once more, whose default action is to die of it. Ending
        # when asked to is no failure, so that second one is ignored.
        with on_signals(lambda: None):
            server.run(sockets=[listener])
    finally:
        ended.set()


def make_server(app: ASGIApp, options: ServerOptions) -> uvicorn.Server:
    """Set uvicorn up for an application.

    Raises:
        UserError: the certificate or its key cannot be used.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=options.keep_alive,
        timeout_graceful_shutdown=options.grace,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UserError(
            f"{options.tls_cert}: TLS cannot be set up with it ({error}); expected a certificate and its key as PEM, "
            "the key in this file or in that of --tls-key"
        ) from None
    return uvicorn.Server(config)


def _work(place: tuple[str, str], host: str, listener: socket.socket, options: ServerOptions) -> None:
    """Be one of several processes behind a port."""
    configure_logging(options)
    serve_on(listener, ModelTable(*place), host, options)


def _load(table: ModelTable, name: str, wanted: int | None, base: str) -> None:
    try:
        version, predictor = table.get(name, wanted)
    except RequestError:
        return  # the shelf has logged why, and the bundle's status says it
    log.info("%s version %d on %s: POST %s/v1/models/%s:predict", name, version, predictor.engine_name, base, name)


def _watch(table: ModelTable, ended: threading.Event) -> None:
    while not ended.wait(WATCH_SECONDS):
        try:
            table.readiness()
        except Exception:  # the disk, say; what is loaded goes on answering
            log.exception("the bundles could not be looked through")


class Connection(AutoHTTPProtocol):
    """uvicorn's connection, which in addition gives up on headers that never end or are too long, and answers one half
    closed.

    A client that has hung up looks at first like one that has half closed the connection and waits. An interim
    response, which every client of HTTP/1.1 passes over, tells them apart: nobody there answers it with a reset.
    """

    # Of each of uvicorn's protocols.
    cycle: Any
    loop: asyncio.AbstractEventLoop
    scope: Any
    transport: Any
    #: Requests that came before one was answered; only one of the protocols reads ahead.
    pipeline: Any = ()

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and go on waiting while they are not a request's whole headers."""
        began_before = self._has_begun
        super().data_received(data)
        self._header_bytes = self._header_bytes + len(data) if began_before and self._has_begun else 0
        if self._header_bytes > MAX_HEADER_BYTES:  # one of uvicorn's protocols has no bound
            self.transport.close()
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """Keep the way back open while a request, sent whole, is being answered."""
        if not self._is_answering or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        if self.cycle.scope["http_version"] == "1.1" and not self.pipeline:  # or it might be amid the answer before
            self.loop.call_later(LEFT_SECONDS, self._ask_whether_anyone_is_there)
        return True

    def _ask_whether_anyone_is_there(self, *, again: bool = False) -> None:
        if not self._is_answering or self.cycle.response_started or self.transport.is_closing():
            return
        if not again:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self.loop.call_later(LEFT_SECONDS, partial(self._ask_whether_anyone_is_there, again=True))

    @property
    def _has_begun(self) -> bool:
        """True if what came last is a part of a request's headers, rather than of a body, even a refused one's."""
        return self.cycle is None or self.scope is not self.cycle.scope

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        if self._is_answering and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not self._is_answering and self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if not self._is_answering:
            self.transport.close()
