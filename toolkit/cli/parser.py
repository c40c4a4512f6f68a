"""The commands and their options. Imports nothing heavy: ``toolkit --help`` must answer at once."""

import argparse
from pathlib import Path

from toolkit import __version__

ENGINES = "auto, recommended, savedmodel, litert, litert-int8, openvino, openvino-int8"


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command names its function in ``toolkit.cli.commands`` as ``handler``."""
    parser = argparse.ArgumentParser(
        prog="toolkit",
        description="From a folder of pictures to a served, quantized classifier.",
        epilog="`toolkit COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"toolkit {__version__}")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_models,
        _add_samples,
        _add_check,
        _add_train,
        _add_finetune,
        _add_evaluate,
        _add_predict,
        _add_compress,
        _add_benchmark,
        _add_verify,
        _add_serve,
        _add_demo,
    ):
        add(commands)
    return parser


def _command(commands, name: str, summary: str, *, json: bool = True) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(handler=name)
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the libraries log")
    return parser


def _add_models(commands) -> None:
    parser = _command(commands, "models", "list the networks, or show one network's layer table")
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw NAME's blocks to an .svg or .png file")


def _add_samples(commands) -> None:
    parser = _command(commands, "samples", "write bundled real pictures as an image folder")
    parser.add_argument("name", metavar="NAME", help="digits: 1,797 handwritten digits")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new folder")


def _add_check(commands) -> None:
    parser = _command(commands, "check", "examine a folder of pictures: corrupt, duplicate, leaking, imbalanced")
    _add_data(parser)


def _add_train(commands) -> None:
    parser = _command(commands, "train", "train a network from scratch on a folder of pictures")
    _add_data(parser)
    parser.add_argument("--model", required=True, metavar="M", help="see `toolkit models`")
    parser.add_argument("--recipe", metavar="R", help="by default the network's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as optimizer.lr=0.05")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, if there is one")
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it works")
    parser.add_argument("--export", type=Path, metavar="saved_models/NAME", help="write a bundle's next version")
    _add_export(parser)
    _add_skip_bad(parser)


def _add_finetune(commands) -> None:
    parser = _command(commands, "finetune", "put a new classifier on a pretrained network and export it")
    _add_data(parser)
    parser.add_argument("--model", required=True, metavar="M", help="see `toolkit models`")
    parser.add_argument("--weights", default="imagenet", metavar="TAG|PATH", help="a tag, weights, a run or a bundle")
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    parser.add_argument("--unfreeze", metavar="STAGE", help="afterwards train the stages from this one on as well")
    parser.add_argument("--epochs", type=_positive, default=5, metavar="N", help="how long to (default 5)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of features; by default in the user's cache")
    _add_export(parser)
    _add_skip_bad(parser)


def _add_evaluate(commands) -> None:
    parser = _command(commands, "evaluate", "measure a bundle's accuracy on a folder of pictures")
    _add_bundle(parser)
    _add_data(parser)
    _add_engine(parser)
    _add_skip_bad(parser)


def _add_predict(commands) -> None:
    parser = _command(commands, "predict", "classify pictures")
    _add_bundle(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--top-k", type=_positive, default=5, metavar="K", help="labels per picture (default 5)")
    _add_engine(parser)


def _add_compress(commands) -> None:
    parser = _command(commands, "compress", "quantize a bundle's network and write the bundle's next version")
    _add_bundle(parser)
    parser.add_argument("--method", required=True, metavar="dynamic|float16|int8")
    parser.add_argument("--data", required=True, type=Path, help="the pictures it was trained on")
    parser.add_argument("--force", action="store_true", help="write it even if too much accuracy is lost")
    _add_skip_bad(parser)


def _add_benchmark(commands) -> None:
    parser = _command(commands, "benchmark", "time every engine on this machine and recommend one")
    _add_bundle(parser)


def _add_verify(commands) -> None:
    parser = _command(commands, "verify", "give the same pictures to every engine and compare the answers")
    _add_bundle(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")


def _add_serve(commands) -> None:
    parser = _command(commands, "serve", "answer TensorFlow Serving's REST protocol for every bundle", json=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="holds bundles")
    _add_address(parser, port=8501)
    _add_engine(parser)


def _add_demo(commands) -> None:
    parser = _command(commands, "demo", "open the web demo", json=False)
    parser.add_argument("directory", nargs="?", default=Path("saved_models"), type=Path, metavar="DIR")
    _add_address(parser, port=7860)
    _add_engine(parser)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder with one sub-folder of pictures per class")


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="saved_models/NAME, or one version of it")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", default="auto", metavar="E", help=f"{ENGINES} (default auto)")


def _add_address(parser: argparse.ArgumentParser, *, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    parser.add_argument("--port", type=int, default=port, help=f"default {port}")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples", type=int, default=0, metavar="N", help="held-out pictures to ship in the bundle for the demo"
    )
    parser.add_argument("--force", action="store_true", help="write the bundle even if its engines disagree")


def _add_skip_bad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable pictures out")
