"""Options of the commands about networks, their weights, and folders of pictures."""

from pathlib import Path

from toolkit.cli.arguments import add_data
from toolkit.cli.usage.command import Commands, add_action, add_command


def _models(commands: Commands) -> None:
    parser = add_command(commands, "models", "list the networks, or show one network's layer table")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the network to show; without it all are listed")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw NAME's blocks to an .svg or .png file")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="draw classic edge detectors and their answers")


def _weights(commands: Commands) -> None:
    parser = add_command(
        commands,
        "weights",
        "list, download, verify and convert pretrained weights",
        json=False,
        interrupted="the same command continues a download where it stopped",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_action(actions, "list", "what was published for every network, or for one, and what is here")
    listing.add_argument("model", nargs="?", metavar="M", help="see `toolkit models`")
    download = add_action(actions, "download", "bring a file into the cache and check it; prints its path")
    verify = add_action(actions, "verify", "check a downloaded file, or any file, and load it into the network")
    for action in (download, verify):
        action.add_argument("model", metavar="M", help="see `toolkit models`")
    download.add_argument("tag", nargs="?", default="imagenet", metavar="TAG", help="default imagenet, the best")
    verify.add_argument("weights", nargs="?", default="imagenet", metavar="TAG|FILE", help="default imagenet")
    convert = add_action(actions, "convert", "write any supported file as .safetensors or .weights.h5")
    convert.add_argument("source", metavar="TAG|FILE", help="a tag, see `toolkit weights list M`, or a file of weights")
    convert.add_argument("target", type=Path, metavar="OUT", help="ends in .safetensors or .weights.h5")
    convert.add_argument("--model", required=True, metavar="M", help="the network the weights are for")
    convert.add_argument("--deepen", metavar="M", help="write them for this deeper network, which answers the same")


def _samples(commands: Commands) -> None:
    parser = add_command(commands, "samples", "write bundled real pictures into a folder")
    parser.add_argument("name", metavar="NAME", help="{samples}: 1,797 handwritten digits, or a few photographs")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new folder")


def _check(commands: Commands) -> None:
    parser = add_command(commands, "check", "examine a folder of pictures: corrupt, duplicate, leaking, imbalanced")
    add_data(parser)
    parser.add_argument("--model", metavar="M", help="also tell which pictures are smaller than this network's input")
    listed = "write the list of pictures to leave out (default DATA/quarantine.txt, where everything honours it)"
    parser.add_argument("--quarantine", nargs="?", const=True, metavar="FILE", help=listed)
    parser.add_argument(
        "--augment-preview", type=Path, metavar="FILE", help="draw what augmentation makes of the pictures, to a .png"
    )
    parser.add_argument("--augment", default="", metavar="SPEC", help="such as mirror,resized_crop:0.25/1; else each")


#: In the order of the page of help.
COMMANDS = (_models, _weights, _samples, _check)
