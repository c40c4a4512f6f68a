"""Options of fine-tuning and of its cache."""

from pathlib import Path

from toolkit.cli.arguments import add_data, add_export, add_formats, add_skip_bad, duration, positive
from toolkit.cli.usage.command import Commands, add_action, add_command


def _finetune(commands: Commands) -> None:
    parser = add_command(
        commands,
        "finetune",
        "put a new classifier on a pretrained network and export it",
        interrupted="nothing was exported, and the same command finds the features computed so far in the cache",
    )
    add_data(parser)
    parser.add_argument(
        "--model",
        required=True,
        metavar="M|FILE",
        help="see `toolkit models`; keras.applications:NAME; a network's file; auto, or M,M,…, for the best of several",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="TAG|PATH",
        help="a tag, weights, a run, a bundle; a folder for several",
    )
    parser.add_argument(
        "--max-ms", type=float, metavar="N", help="of several networks one that takes no longer a picture"
    )
    parser.add_argument("--max-mb", type=float, metavar="N", help="of several networks one that is no larger")
    parser.add_argument(
        "--preprocessing",
        metavar="P",
        help="of a network that is in no table: imagenet, caffe, inception, none, or fields as JSON",
    )
    seen = "pixels a side that the network sees (default as it was trained, tiny pictures smaller)"
    parser.add_argument("--size", type=positive, metavar="N", help=seen)
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    parser.add_argument("--head", default="auto", metavar="H", help="{heads} (default auto)")
    parser.add_argument(
        "--hidden", type=positive, nargs="+", default=[], metavar="N", help="widths of hidden layers before the logits"
    )
    parser.add_argument(
        "--keep-val", action="store_true", help="hold the folder's own validation pictures out; else they teach too"
    )
    parser.add_argument("--views", type=positive, default=1, metavar="K", help="of each picture, cached (default 1)")
    parser.add_argument("--balanced", action="store_true", help="weigh all classes alike, whatever their sizes")
    parser.add_argument(
        "--unfreeze", default="auto", metavar="STAGE", help="then train from this stage on; none, or auto by data size"
    )
    parser.add_argument("--gradual", action="store_true", help="unfreeze one stage after another")
    bought = "the best classifier that so long buys, such as 10m: stages train too, and stay if that is better"
    parser.add_argument("--budget", type=duration, metavar="TIME", help=bought)
    most = "of unfrozen stages (default 5; with --budget at most 12)"
    parser.add_argument("--epochs", type=positive, metavar="N", help=most)
    parser.add_argument("--lr", type=float, metavar="R", help="of unfrozen stages (default 0.003)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of features; by default in the user's cache")
    parser.add_argument("--cluster", metavar="ADDRESS", help="compute features on a Ray cluster; local starts one here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a page: scores, mistakes, map, doubtful labels")
    add_export(parser)
    add_formats(parser)
    add_skip_bad(parser)


def _cache(commands: Commands) -> None:
    parser = add_command(commands, "cache", "list, verify and prune the features cached on disk", json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_action(actions, "list", "what is cached, how much of it, and when it was last used")
    verify = add_action(actions, "verify", "check every entry, and remove the damaged ones")
    prune = add_action(actions, "prune", "remove what is no longer wanted, and shrink the file")
    prune.add_argument("contexts", nargs="*", default=[], metavar="ID", help="beginnings of identifiers, see list")
    prune.add_argument("--unused-days", type=float, metavar="N", help="whatever was not used for so long")
    prune.add_argument("--all", action="store_true", help="everything")
    for action in (listing, verify, prune):
        action.add_argument("--cache", type=Path, metavar="DIR", help="by default in the user's cache")


#: In the order of the page of help.
COMMANDS = (_finetune, _cache)
