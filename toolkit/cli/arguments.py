"""Arguments that several commands have, and the types of their values."""

import argparse
from pathlib import Path

from toolkit.api.options import seconds
from toolkit.errors import UserError


def positive(text: str) -> int:
    """Read a whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text}")
    return value


def duration(text: str) -> str:
    """Refuse what is no time, such as ``90s``, and leave it as it is written."""
    try:
        seconds(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_data(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    kinds = "a folder with one folder of pictures per class, a CSV file path,label, a tar or zip file, or IDX files"
    parser.add_argument("data", nargs="?" if optional else None, type=Path, metavar="DATA", help=kinds)
    add_reading(parser)


def add_reading(parser: argparse.ArgumentParser) -> None:
    named = "which folders of DATA are splits, such as train=fold1,val=fold2, or none; else their names tell"
    parser.add_argument("--split-folders", metavar="SPLITS", help=named)
    joined = "make one class of those whose names differ in case, blanks or Unicode form only"
    parser.add_argument("--join-classes", action="store_true", help=joined)


def add_bundle(parser: argparse.ArgumentParser, *, written: bool = False, further: str = "") -> None:
    """Add a bundle: one whose folder is ``written`` to is given by its path, others by a shipped one's name too."""
    kinds = "saved_models/NAME, or one version of it" + ("" if written else "; or a shipped one by its name: {shipped}")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=kinds + further)


def add_bundles_folder(parser: argparse.ArgumentParser) -> None:
    holds = "folder of bundles, or one bundle with its versions (default saved_models)"
    parser.add_argument("directory", nargs="?", default=Path("saved_models"), type=Path, metavar="DIR", help=holds)


def add_others(parser: argparse.ArgumentParser) -> None:
    averaged = "average this one's answers in; once for each"
    parser.add_argument(
        "--with", action="append", default=[], type=Path, dest="others", metavar="BUNDLE", help=averaged
    )


def add_crops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crops", type=positive, default=1, metavar="N", help="crops to average: {crops} (default 1)")
    parser.add_argument(
        "--scales", type=positive, nargs="+", default=[], metavar="S", help="all of them at each shorter side"
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="auto", metavar="E", help="{engines} (default auto)")


def add_address(parser: argparse.ArgumentParser, *, port: int | None, default: str = "") -> None:
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    parser.add_argument("--port", type=int, default=port, help=f"default {default or port}")


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples", type=int, default=0, metavar="N", help="held-out pictures to ship in the bundle for the demo"
    )
    parser.add_argument("--force", action="store_true", help="write the bundle even if its engines disagree")


def add_formats(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--formats",
        type=lambda text: tuple(text.split(",")),
        default=("savedmodel", "litert", "int8"),
        metavar="F,...",
        help="files of the bundle, of {formats}; the SavedModel always (default savedmodel,litert,int8)",
    )
    formats.add_argument(
        "--no-int8",
        dest="formats",
        action="store_const",
        const=("savedmodel", "litert"),
        help="write no int8 file, which takes the most time",
    )
    halved = "round the weights to half precision, which halves the bundle; it computes in float32 as before"
    parser.add_argument("--half", action="store_true", help=halved)


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable pictures out")
