"""Entry point.

Exit status: 0 success; 1 not all of it: pictures that have no answer, a check that failed, or with a traceback a
mistake of ours; 2 bad usage or input, told in one line on stderr; 130 interrupted.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from toolkit.cli.failures import in_words
from toolkit.cli.options import parse
from toolkit.cli.output import StderrHandler, claim_streams, drop_stdout, is_of_stdout, progress_bars
from toolkit.cli.parser import build_parser
from toolkit.errors import UserError
from toolkit.lazy import without_companions


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; by default the process's own.

    Returns:
        The exit status.
    """
    try:
        arguments = parse(build_parser(), sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"toolkit: error: {error}", file=sys.stderr)
        return 2
    _quiet_libraries(arguments.verbose)
    from toolkit.cli import commands

    try:
        with progress_bars(), without_companions():
            getattr(commands, arguments.handler)(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # `toolkit models | head`
        drop_stdout()
        return 0
    except (UserError, OSError) as error:
        if is_of_stdout(error):
            drop_stdout()
        line = in_words(error, arguments)
        if not line or (arguments.verbose and isinstance(error, OSError)):
            raise
        print(f"toolkit: error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"toolkit: interrupted{arguments.interrupted}", file=sys.stderr)
        return 130
    return 0


def _quiet_libraries(verbose: bool) -> None:
    level, form = (logging.INFO, "%(name)s: %(message)s") if verbose else (logging.WARNING, "%(message)s")
    logging.basicConfig(level=level, format=form, handlers=[StderrHandler()], force=True)
    logging.getLogger("toolkit").setLevel(logging.INFO)
    if verbose:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    for name in ("absl", "tensorflow", "jax", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The runtimes' C++ parts write to the process's streams, whatever a log level says.
    claim_streams()
