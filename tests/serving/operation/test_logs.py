"""The log's forms: both tell which request a line is about."""

import io
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.serving import ServerOptions
from toolkit.serving.operation import middleware
from toolkit.serving.operation.logs import configure_logging


@contextmanager
def one_handler() -> Iterator[logging.Handler]:
    """Have the log handled by one handler alone, set up as the command does.

    A fixture would not do: pytest adds its own handlers after it, and they would keep the form for later tests.
    """
    handler, root = logging.StreamHandler(io.StringIO()), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handlers, root.handlers = root.handlers, [handler]
    try:
        yield handler
    finally:
        root.handlers = handlers


def logged(handler: logging.Handler) -> str:
    """Log a line outside of any request, then an error within one, and give the text."""
    log = logging.getLogger("toolkit.test")
    log.error("one")
    token = middleware._request_id.set("mine-7")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("two")
    finally:
        middleware._request_id.reset(token)
    return handler.stream.getvalue()


def test_text_lines_end_in_the_requests_id():
    with one_handler() as handler:
        for _ in range(2):  # a worker sets up what it was given
            configure_logging(ServerOptions())
            handler.setFormatter(pickle.loads(pickle.dumps(handler.formatter)))
        lines = logged(handler).splitlines()
    assert lines[:3] == ["ERROR: one", "ERROR: two (request mine-7)", "Traceback (most recent call last):"]
    assert lines[-1] == "ZeroDivisionError"


def test_json_lines_hold_it(caplog):
    with one_handler() as handler:
        configure_logging(ServerOptions(log_format="json"))
        first, second = map(json.loads, logged(handler).splitlines())
    assert "request_id" not in first
    assert (second["message"], second["request_id"]) == ("two", "mine-7")
    logging.getLogger("toolkit.test").error("100 × 100")
    assert caplog.text.endswith("100 × 100\n")
