"""Options of the commands that train networks."""

from pathlib import Path

from toolkit.cli.arguments import add_data, add_export, add_formats, add_skip_bad, positive
from toolkit.cli.usage.command import Commands, add_command


def _train(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        "train a network on a folder of pictures",
        interrupted="the same command with --resume goes on after the last whole epoch",
    )
    add_data(parser, optional=True)
    parser.add_argument("--model", metavar="M", help="see `toolkit models`")
    parser.add_argument("--weights", metavar="RUN|PATH|TAG", help="start from these; by default from fresh ones")
    parser.add_argument("--recipe", metavar="R", help="{recipes}; by default the network's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as optimizer.lr=0.05")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the run's directory")
    resumed = "go on with this run, or with the one in --out if there is one; it knows its data and settings"
    parser.add_argument("--resume", nargs="?", const=True, metavar="RUN", help=resumed)
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it works")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of host 0, where several hosts train together")
    parser.add_argument("--num-hosts", type=positive, metavar="N", help="how many they are; run this on each of them")
    parser.add_argument("--host-id", type=int, metavar="I", help="which of them this is, from 0")
    tracked = "also note the run in tensorboard, mlflow or wandb, on this machine; once for each"
    parser.add_argument("--track", action="append", default=[], metavar="T", help=tracked)
    parser.add_argument("--export", type=Path, metavar="saved_models/NAME", help="write a bundle's next version")
    add_export(parser)
    add_formats(parser)
    add_skip_bad(parser)


def _tune(commands: Commands) -> None:
    searched = "search a training run's settings at random, in one run after another or in several at a time"
    parser = add_command(
        commands, "tune", searched, interrupted="the same command with --resume goes on with the trials that are left"
    )
    add_data(parser)
    parser.add_argument("--model", required=True, metavar="M", help="see `toolkit models`")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="SEARCH", help="its directory; a run per trial below"
    )
    scales = (
        "such as optimizer.lr=log:1e-4:1e-1; scales are uniform:LOW:HIGH, log, log1m (the log of 1 - value, for "
        "momentum), int, logint, and choice:A,B,C"
    )
    parser.add_argument("--search", action="append", required=True, metavar="KEY=SCALE:...", help=scales)
    parser.add_argument("--trials", type=positive, default=20, metavar="N", help="in all (default 20)")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="trials at a time (default 1)")
    parser.add_argument("--metric", default="val_accuracy", metavar="M", help="val_accuracy (default) or val_loss")
    parser.add_argument("--prune", action="store_true", help="stop trials that do worse than the median so far")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the values tried (default 0)")
    parser.add_argument("--recipe", metavar="R", help="{recipes}; by default the network's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as run.epochs=5")
    parser.add_argument("--resume", action="store_true", help="go on with the search in --out, if there is one")
    add_skip_bad(parser)


def _gradcheck(commands: Commands) -> None:
    parser = add_command(commands, "gradcheck", "hold a network's gradients against numerical ones, in float64")
    parser.add_argument("model", metavar="MODEL", help="see `toolkit models`")
    parser.add_argument("--size", type=positive, metavar="N", help="of the pictures (default 32, or what it needs)")
    parser.add_argument("--batch", type=positive, default=4, metavar="N", help="pictures (default 4)")
    parser.add_argument("--entries", type=positive, default=3, metavar="N", help="per variable (default 3)")
    parser.add_argument(
        "--batch-norm", choices=["batch", "running"], default="batch", help="whose statistics (default batch)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")


#: In the order of the page of help.
COMMANDS = (_train, _tune, _gradcheck)
