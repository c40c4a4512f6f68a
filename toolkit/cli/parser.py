"""The command line as a whole. Imports nothing heavy: ``toolkit --help`` must answer at once."""

import argparse

from toolkit import __version__
from toolkit.cli.usage import answers, bundles, hub, machine, networks, runtimes, training, transfer


def build_parser() -> argparse.ArgumentParser:
    """Build the whole command line; each command names its function in ``toolkit.cli.commands`` as ``handler``."""
    parser = argparse.ArgumentParser(
        prog="toolkit",
        description="From a folder of pictures to a served, quantized classifier.",
        epilog="`toolkit COMMAND --help` tells more. Exit status: 0 success; 1 pictures without an answer, or a check "
        "that failed; 2 bad usage or input, told on stderr; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"toolkit {__version__}")
    parser.set_defaults(verbose=False, interrupted="")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (machine, networks, training, transfer, answers, bundles, hub, runtimes):
        for add in module.COMMANDS:
            add(commands)
    return parser
