"""The server's log: a line or a JSON object for each record, with the id of the request it belongs to."""

import json
import logging
import os
import sys
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from toolkit.serving.operation.middleware import current_request_id
from toolkit.serving.options import ServerOptions


def configure_logging(options: ServerOptions) -> None:
    """Set the log up, unless whoever runs the server did; in the form that ``options`` asks for, in any case."""
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for handler in root.handlers:
        handler.addFilter(_add_request_id)
        if options.log_format == "json":
            handler.setFormatter(JsonLines())
        elif not isinstance(handler.formatter, TextLines):  # a worker is given one
            handler.setFormatter(TextLines(handler.formatter or logging.Formatter()))


class LogForm(NamedTuple):
    """The way this process logs, for another one to log alike; see ``current_form``.

    Attributes:
        stream: what is written to, in a form that can be handed to a process.
        levels: of the root logger, and of this package's.
        formatter: of the lines.
    """

    stream: Connection | None
    levels: tuple[int, int]
    formatter: logging.Formatter | None

    def take(self) -> None:
        """Log in this process in this form."""
        root, package = logging.getLogger(), logging.getLogger("toolkit")
        if self.stream is not None:
            descriptor = self.stream.fileno()
            stream = open(descriptor, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
            root.handlers = [logging.StreamHandler(stream)]
            root.handlers[0].setFormatter(self.formatter)
        for logger, level in zip((root, package), self.levels, strict=True):
            logger.setLevel(level)


def current_form() -> LogForm:
    """Tell how this process logs: to its stderr, which need not be its second descriptor."""
    root = logging.getLogger()
    try:
        stream = Connection(os.dup(sys.stderr.fileno()), readable=False)
    except (OSError, ValueError, AttributeError):  # not a real one
        stream = None
    formatter = root.handlers[0].formatter if root.handlers else None
    return LogForm(stream, (root.level, logging.getLogger("toolkit").level), formatter)


def _add_request_id(record: logging.LogRecord) -> bool:
    if request_id := current_request_id():
        record.request_id = request_id
    return True


class TextLines(logging.Formatter):
    """Lines as another formatter writes them, with the id of the request that each is about."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Write a record, the id at the end of its first line."""
        text = self._form.format(record)
        if not (request_id := getattr(record, "request_id", "")):
            return text
        line, *traceback = text.split("\n")
        return "\n".join([f"{line} (request {request_id})", *traceback])


class JsonLines(logging.Formatter):
    """One JSON object a line, for whatever collects logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        document: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            document["request_id"] = request_id
        document |= getattr(record, "facts", {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)
