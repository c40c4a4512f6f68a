"""Options of the commands that exchange bundles with a hub."""

from pathlib import Path

from toolkit.cli.arguments import add_bundle
from toolkit.cli.usage.command import Commands, add_command


def _push(commands: Commands) -> None:
    parser = add_command(commands, "push", "bring a bundle to the Hugging Face hub, with a model card")
    add_bundle(parser)
    named = "hf://user/name; its version becomes the tag, or give one: hf://user/name@v2"
    parser.add_argument("address", metavar="ADDRESS", help=named)
    parser.add_argument("--private", action="store_true", help="make the repository, if it is new, for its owner alone")
    known = "of the weights, such as Apache-2.0 (default that of the published ones it began with)"
    parser.add_argument("--licence", metavar="SPDX", help=known)
    parser.add_argument("--onnx", action="store_true", help="put a model.onnx beside it")


def _pull(commands: Commands) -> None:
    parser = add_command(
        commands,
        "pull",
        "bring a bundle here from the Hugging Face hub, compared with its checksums",
        interrupted="no version was written; the same command begins again",
    )
    parser.add_argument("address", metavar="ADDRESS", help="hf://user/name, or a version of it: hf://user/name@v2")
    parser.add_argument("directory", type=Path, metavar="saved_models/NAME", help="the bundle it becomes a version of")


#: In the order of the page of help.
COMMANDS = (_push, _pull)
