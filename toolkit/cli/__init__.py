"""The command line: parses, calls, prints. What a command does stands in ``toolkit.workflows`` and below."""

from toolkit.cli.main import main

__all__ = ["main"]
