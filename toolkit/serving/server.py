"""The application run by uvicorn: listen, load, answer, end cleanly."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

import uvicorn

from toolkit.machine import bind_address, cannot_listen
from toolkit.serving.app import build_app
from toolkit.serving.models import ModelTable
from toolkit.serving.protocol import RequestError

log = logging.getLogger(__name__)

#: At shutdown, requests in progress get so long to finish.
GRACE_SECONDS = 10


def run_server(table: ModelTable, *, host: str, port: int) -> None:
    """Serve ``table`` until SIGINT or SIGTERM, with the newest version of each bundle loaded beforehand.

    Raises:
        UserError: the address cannot be listened on.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")  # unless the caller did
    # Bound before the models load, so that a port in use is told at once; listening only after, so that nobody
    # connects to a server that is not ready.
    with bind_address(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        base = f"http://{address}:{listener.getsockname()[1]}"
        for name in table.names():
            _load(table, name, base)
        try:
            listener.listen()
        except OSError as error:
            raise cannot_listen(error, host, port) from None
        config = uvicorn.Config(
            build_app(table), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS
        )
        with _signals_end_cleanly():
            uvicorn.Server(config).run(sockets=[listener])


def _load(table: ModelTable, name: str, base: str) -> None:
    try:
        version, predictor = table.get(name)
    except RequestError:
        return  # the shelf has logged why, and the bundle's status says it
    log.info("%s version %d on %s: POST %s/v1/models/%s:predict", name, version, predictor.engine_name, base, name)


@contextlib.contextmanager
def _signals_end_cleanly() -> Iterator[None]:
    # Having shut down, uvicorn raises the signal it caught once more, whose default action is to die of it. Ending
    # when asked to is no failure, so that second one is ignored.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
