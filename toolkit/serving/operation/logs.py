"""The server's log: a line or a JSON object for each record, with the id of the request it belongs to."""

import json
import logging
from typing import Any

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


def _add_request_id(record: logging.LogRecord) -> bool:
    if request_id := current_request_id():
        record.request_id = request_id
    return True


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
