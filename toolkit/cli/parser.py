"""Commands and their options. Imports nothing heavy: ``toolkit --help`` must answer at once."""

import argparse
from pathlib import Path

from toolkit import __version__
from toolkit.cli.arguments import (
    add_address,
    add_bundle,
    add_bundles_folder,
    add_crops,
    add_data,
    add_engine,
    add_export,
    add_formats,
    add_others,
    add_reading,
    add_skip_bad,
    duration,
    positive,
)


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
    for add in (_add_machine, _add_networks, _add_training, _add_transfer, _add_bundles, _add_hub, _add_runtimes):
        add(commands)
    return parser


class _HelpFormatter(argparse.HelpFormatter):
    """Fills ``{engines}`` and the like into the help of options, from the tables that hold the names."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = super()._get_help_string(action)
        if text and "{" in text:
            from toolkit.cli.names import NAMES  # for the help page that shows them, and for nothing else

            text = text.format(**{table: ", ".join(map(str, names)) for table, names in NAMES.items()})
        return text


def _command(commands, name: str, summary: str, *, json: bool = True, interrupted: str = "") -> argparse.ArgumentParser:
    """Add a command; ``interrupted`` says after Ctrl+C how to go on."""
    parser = _action(commands, name, summary, json=json)
    parser.set_defaults(handler=name, interrupted=interrupted and f"; {interrupted}")
    return parser


def _action(actions, name: str, summary: str, *, json: bool = True) -> argparse.ArgumentParser:
    description = summary[0].upper() + summary[1:] + "."
    parser = actions.add_parser(name, help=summary, description=description, formatter_class=_HelpFormatter)
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    told = "take options from this TOML file, by their names; those of the command line count"
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help=told)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the libraries log")
    return parser


def _add_machine(commands) -> None:
    _command(commands, "doctor", "tell what is installed, which engines answer, and what is missing")
    parser = _command(commands, "completion", "print a script that completes commands in a shell", json=False)
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")


def _add_networks(commands) -> None:
    parser = _command(commands, "models", "list the networks, or show one network's layer table")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the network to show; without it all are listed")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw NAME's blocks to an .svg or .png file")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="draw classic edge detectors and their answers")

    parser = _command(
        commands,
        "weights",
        "list, download, verify and convert pretrained weights",
        json=False,
        interrupted="the same command continues a download where it stopped",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "what was published for every network, or for one, and what is here")
    listing.add_argument("model", nargs="?", metavar="M", help="see `toolkit models`")
    download = _action(actions, "download", "bring a file into the cache and check it; prints its path")
    verify = _action(actions, "verify", "check a downloaded file, or any file, and load it into the network")
    for action in (download, verify):
        action.add_argument("model", metavar="M", help="see `toolkit models`")
    download.add_argument("tag", nargs="?", default="imagenet", metavar="TAG", help="default imagenet, the best")
    verify.add_argument("weights", nargs="?", default="imagenet", metavar="TAG|FILE", help="default imagenet")
    convert = _action(actions, "convert", "write any supported file as .safetensors or .weights.h5")
    convert.add_argument("source", metavar="TAG|FILE", help="a tag, see `toolkit weights list M`, or a file of weights")
    convert.add_argument("target", type=Path, metavar="OUT", help="ends in .safetensors or .weights.h5")
    convert.add_argument("--model", required=True, metavar="M", help="the network the weights are for")
    convert.add_argument("--deepen", metavar="M", help="write them for this deeper network, which answers the same")

    parser = _command(commands, "samples", "write bundled real pictures into a folder")
    parser.add_argument("name", metavar="NAME", help="{samples}: 1,797 handwritten digits, or a few photographs")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new folder")

    parser = _command(commands, "check", "examine a folder of pictures: corrupt, duplicate, leaking, imbalanced")
    add_data(parser)
    parser.add_argument("--model", metavar="M", help="also tell which pictures are smaller than this network's input")
    listed = "write the list of pictures to leave out, which training honours (default DATA/quarantine.txt)"
    parser.add_argument("--quarantine", nargs="?", const=True, metavar="FILE", help=listed)
    parser.add_argument(
        "--augment-preview", type=Path, metavar="FILE", help="draw what augmentation makes of the pictures, to a .png"
    )
    parser.add_argument("--augment", default="", metavar="SPEC", help="such as mirror,resized_crop:0.25/1; else each")


def _add_training(commands) -> None:
    parser = _command(
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

    searched = "search a training run's settings at random, in one run after another or in several at a time"
    parser = _command(
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

    parser = _command(commands, "gradcheck", "hold a network's gradients against numerical ones, in float64")
    parser.add_argument("model", metavar="MODEL", help="see `toolkit models`")
    parser.add_argument("--size", type=positive, metavar="N", help="of the pictures (default 32, or what it needs)")
    parser.add_argument("--batch", type=positive, default=4, metavar="N", help="pictures (default 4)")
    parser.add_argument("--entries", type=positive, default=3, metavar="N", help="per variable (default 3)")
    parser.add_argument(
        "--batch-norm", choices=["batch", "running"], default="batch", help="whose statistics (default batch)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")


def _add_transfer(commands) -> None:
    parser = _command(
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
        help="see `toolkit models`; keras.applications:NAME; a .keras file; auto, or M,M,…, for the best of several",
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

    parser = _command(commands, "cache", "list, verify and prune the features cached on disk", json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "what is cached, how much of it, and when it was last used")
    verify = _action(actions, "verify", "check every entry, and remove the damaged ones")
    prune = _action(actions, "prune", "remove what is no longer wanted, and shrink the file")
    prune.add_argument("contexts", nargs="*", default=[], metavar="ID", help="beginnings of identifiers, see list")
    prune.add_argument("--unused-days", type=float, metavar="N", help="whatever was not used for so long")
    prune.add_argument("--all", action="store_true", help="everything")
    for action in (listing, verify, prune):
        action.add_argument("--cache", type=Path, metavar="DIR", help="by default in the user's cache")


def _add_bundles(commands) -> None:
    parser = _command(commands, "evaluate", "measure a bundle's accuracy on pictures that it did not learn from")
    add_bundle(parser)
    add_data(parser)
    unseen = "train, val, test or all (default test, else val, else the pictures that did not teach the bundle)"
    parser.add_argument("--subset", metavar="S", help=unseen)
    devkit = "DATA holds ImageNet's validation pictures, flat: the folder of ILSVRC2012_devkit_t12 tells their classes"
    parser.add_argument("--imagenet", type=Path, metavar="DEVKIT", help=devkit)
    add_others(parser)
    add_crops(parser)
    add_engine(parser)
    add_skip_bad(parser)

    parser = _command(commands, "predict", "classify pictures", json=False)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    form.add_argument("--csv", action="store_true", help="print a table path,label,probability,rejected,... on stdout")
    add_bundle(parser)
    kinds = "files, folders, patterns such as 'photos/*.jpg', and - for a list on stdin, one path a line"
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=kinds)
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="labels per picture (default 5)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="predict on a Ray cluster; local starts one here")
    asked = "ask this server, such as http://127.0.0.1:8501, for its bundle NAME, NAME/VERSION or NAME/LABEL"
    parser.add_argument("--server", metavar="URL", help=asked)
    add_others(parser)
    add_crops(parser)
    add_engine(parser)

    parser = _command(
        commands, "explain", "show where in a picture the evidence for a class lies, and what a network saw"
    )
    kinds = "a bundle, a network (see `toolkit models`), or a .keras file of one"
    parser.add_argument("network", metavar="BUNDLE|M|FILE", help=kinds)
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a picture; filters need none")
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw it; otherwise it is said in words only")
    several = "explain this class (default the likeliest), by name or number; once for each"
    parser.add_argument("--class", action="append", default=[], dest="classes", metavar="C", help=several)
    parser.add_argument("--against", metavar="C", help="hold it against this class (default all others)")
    methods = "evidence, grad-cam, hires-cam, occlusion; auto (default) is exact where the classifier allows it"
    parser.add_argument("--method", default="auto", metavar="H", help=methods)
    parser.add_argument("--stage", metavar="S", help="whose map to look at, or a layer (default what is read)")
    kinds = "map (default), features of a stage, filters of the first layer, or statistics of the activations"
    parser.add_argument("--show", default="map", metavar="W", help=kinds)
    parser.add_argument("--weights", metavar="TAG|PATH", help="of M: a tag (default imagenet), a file, run or bundle")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line; a bundle has its own")
    parser.add_argument(
        "--preprocessing", metavar="P", help="of a FILE's network: imagenet, caffe, inception, none, or fields as JSON"
    )

    parser = _command(commands, "ensemble", "export bundles as one that averages them, over several views if asked")
    parser.add_argument(
        "bundles", nargs="+", type=Path, metavar="BUNDLE", help="with the same labels; one will do to export its views"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    add_crops(parser)
    parser.add_argument(
        "--data", type=Path, help="the pictures they were trained on: for its accuracy and its reject threshold"
    )
    add_reading(parser)
    add_export(parser)
    add_skip_bad(parser)

    parser = _command(commands, "import", "make a bundle of a classifier that somebody else trained")
    parser.set_defaults(handler="import_model")
    kinds = (
        "a .keras or .h5 file of a whole model, an .onnx or .tflite file, or a SavedModel's folder; or a network, see "
        "`toolkit models`, with --weights"
    )
    parser.add_argument("file", type=Path, metavar="FILE|NETWORK", help=kinds)
    published = "of a NETWORK: a tag, see `toolkit weights list`, or a file of weights"
    parser.add_argument("--weights", metavar="TAG|PATH", help=published)
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    parser.add_argument("--labels", required=True, type=Path, metavar="FILE", help="class names in order, one a line")
    told = "what it was trained with, if its layers do not tell: imagenet, caffe, inception, none, or fields as JSON"
    parser.add_argument("--preprocessing", metavar="P", help=told)
    parser.add_argument("--data", type=Path, help="pictures to compare engines on, and to calibrate int8 with")
    add_reading(parser)
    add_export(parser)
    add_formats(parser)
    add_skip_bad(parser)

    parser = _command(
        commands,
        "bundles",
        "list, verify, label and prune bundles' versions, share requests out, and set the engine that one recommends",
        json=False,
    )
    parser.set_defaults(handler="manage_bundles")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "every version in a directory: state, labels, accuracy, size, date, engines")
    add_bundles_folder(listing)
    shown = _action(actions, "examples", "classify the pictures that a bundle brings, beside their true labels")
    add_bundle(shown)
    add_engine(shown)
    meant = "make `--engine recommended` mean this engine, at once also where the bundle is served"
    recommend = _action(actions, "recommend", meant)
    add_bundle(recommend, written=True)
    recommend.add_argument("engine", metavar="ENGINE", help="such as litert-int8; see `toolkit benchmark BUNDLE`")
    untrusted = "even one whose accuracy was not measured, or was too low, when the bundle was written"
    recommend.add_argument("--force", action="store_true", help=untrusted)
    compared = "compare a version's files with their checksums, and its engines' answers with its network's"
    several = "; or a folder of bundles, for every version in it"
    add_bundle(_action(actions, "verify", compared), further=several)
    promote = _action(actions, "promote", "have a label mean a version, by default the canary's, else the highest")
    rollback = _action(actions, "rollback", "have a label mean the version again that it meant before")
    for action in (promote, rollback):
        add_bundle(action, written=True)
        action.add_argument("--label", default="stable", metavar="L", help="default stable; canary, or any other name")
    rollback.add_argument("--remove", action="store_true", help="take the label away instead")
    shares = "have a label's version answer a share of a server's requests that name no version, and stable the rest"
    share = _action(actions, "share", shares)
    add_bundle(share, written=True)
    share.add_argument(
        "share", nargs="?", type=float, metavar="SHARE", help="from 0 to 1; without it, tell who answers"
    )
    share.add_argument("--label", default="canary", metavar="L", help="default canary")
    share.add_argument("--end", action="store_true", help="have the highest version answer them again")
    prune = _action(actions, "prune", "remove a bundle's old versions, but none with a label or to roll back to")
    add_bundle(prune, written=True)
    prune.add_argument("--keep", type=positive, default=3, metavar="N", help="highest versions (default 3)")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")

    parser = _command(
        commands,
        "compress",
        "compress a bundle's network and write the bundle's next version",
        interrupted="no version was written; the same command begins again",
    )
    add_bundle(parser, written=True)
    methods = "{methods}; all but the first four train on; cluster is k-means clustering of the weights"
    parser.add_argument("--method", required=True, metavar="M", help=methods)
    parser.add_argument("--data", required=True, type=Path, help="the pictures it was trained on")
    add_reading(parser)
    parser.add_argument("--epochs", type=positive, default=3, metavar="N", help="of more training (default 3)")
    parser.add_argument("--learning-rate", type=float, default=1e-5, metavar="R", help="its start (default 1e-5)")
    parser.add_argument("--sparsity", type=float, default=0.5, metavar="S", help="share of zeros (default 0.5)")
    parser.add_argument("--pattern", default="any", metavar="P", help="where zeros may be: {patterns} (default any)")
    parser.add_argument("--clusters", type=int, default=16, metavar="N", help="values per kernel (default 16)")
    parser.add_argument(
        "--keep-float", action="append", default=[], metavar="LAYER", help="leave it in float under int8 and qat"
    )
    parser.add_argument(
        "--keep-worst", type=int, default=0, metavar="N", help="leave the N layers in float that int8 hurts most"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was measured as an HTML page")
    parser.add_argument("--force", action="store_true", help="write it even if too much accuracy is lost")
    add_skip_bad(parser)


def _add_hub(commands) -> None:
    parser = _command(commands, "push", "bring a bundle to the Hugging Face hub, with a model card")
    add_bundle(parser)
    named = "hf://user/name; its version becomes the tag, or give one: hf://user/name@v2"
    parser.add_argument("address", metavar="ADDRESS", help=named)
    parser.add_argument("--private", action="store_true", help="make the repository, if it is new, for its owner alone")
    known = "of the weights, such as Apache-2.0 (default that of the published ones it began with)"
    parser.add_argument("--licence", metavar="SPDX", help=known)
    parser.add_argument("--onnx", action="store_true", help="put a model.onnx beside it")

    parser = _command(
        commands,
        "pull",
        "bring a bundle here from the Hugging Face hub, compared with its checksums",
        interrupted="no version was written; the same command begins again",
    )
    parser.add_argument("address", metavar="ADDRESS", help="hf://user/name, or a version of it: hf://user/name@v2")
    parser.add_argument("directory", type=Path, metavar="saved_models/NAME", help="the bundle it becomes a version of")


def _add_runtimes(commands) -> None:
    parser = _command(commands, "export", "write a bundle's network for other runtimes, or what other servers need")
    add_bundle(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--onnx", type=Path, metavar="FILE.onnx", help="pixels in, probabilities out")
    others = "files for TensorFlow Serving, KServe and OpenVINO Model Server, with batching as measured; a new folder"
    form.add_argument("--tf-serving", type=Path, metavar="DIR", help=others)
    compared = "compare ONNX Runtime with Keras on these too"
    parser.add_argument("--images", nargs="+", default=[], type=Path, metavar="IMAGE", help=compared)

    parser = _command(commands, "benchmark", "time every engine on this machine and recommend one")
    add_bundle(parser)

    parser = _command(commands, "verify", "give the same pictures to every engine and compare the answers")
    add_bundle(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files, for every engine")

    _add_serve(commands)

    parser = _command(commands, "demo", "open the web demo", json=False)
    add_bundles_folder(parser)
    add_address(parser, port=None, default="$PORT, or 7860")
    parser.add_argument("--root-path", default="", metavar="/PATH", help="where a reverse proxy puts the page")
    users = "let in only whom a file names, by lines USER:PASSWORD"
    parser.add_argument("--auth", default=None, type=Path, metavar="FILE", help=users)
    parser.add_argument("--mcp", action="store_true", help="offer the page's endpoints as tools of an MCP server too")
    parser.add_argument("--no-teach", dest="teach", action="store_false", help="leave out the tab *Teach*")
    add_engine(parser)


def _add_serve(commands) -> None:
    from toolkit.serving.options import QUEUE, WORKER_QUEUE, ServerOptions

    default = ServerOptions()
    what = "answer every bundle over HTTP: TensorFlow Serving's REST, Open Inference v2, and pictures as they are"
    parser = _command(commands, "serve", what, json=False)
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="folder of bundles, or one bundle with its versions"
    )
    add_address(parser, port=8501)
    add_engine(parser)
    workers = "processes behind the port, each with all bundles in memory and its share of the processors"
    parser.add_argument("--workers", type=positive, default=default.workers, metavar="N", help=f"{workers} (default 1)")
    queue = (
        "requests of one bundle that are worked on or wait, shared out among the workers; one more is told to come "
        "again, with status 429. Under full load an answer takes N / (answers a second) seconds "
        f"(default {QUEUE}, and at least {WORKER_QUEUE} a worker)"
    )
    parser.add_argument("--max-queue", type=positive, metavar="N", help=queue)
    for option, value, unit, of in (
        ("--max-body-mb", default.max_body_bytes >> 20, "MB", "of a request's body, also once unpacked"),
        ("--max-pictures", default.max_pictures, "N", "pictures in one request"),
        ("--max-megapixels", default.max_pixels // 10**6, "N", "of all pictures of a request together"),
    ):
        help_text = f"{of}; a larger one is refused (default %(default)s)"
        parser.add_argument(option, type=positive, default=value, metavar=unit, help=help_text)
    idle = "a connection without requests is kept so long; longer than a load balancer keeps it (default %(default)s)"
    parser.add_argument("--keep-alive", type=positive, default=default.keep_alive, metavar="SECONDS", help=idle)
    grace = "requests in progress get so long to finish at the end (default %(default)s)"
    parser.add_argument("--grace", type=positive, default=default.grace, metavar="SECONDS", help=grace)
    keys = "ask for a key whose SHA-256 is in this file, one a line, as `printf %%s KEY | sha256sum` writes it"
    parser.add_argument("--api-keys", type=Path, metavar="FILE", help=keys)
    parser.add_argument("--tls-cert", type=Path, metavar="FILE.pem", help="answer HTTPS, with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE.pem", help="its private key, if it is in another file")
    cors = "let pages of this origin call the server (may be repeated; * for any)"
    parser.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help=cors)
    parser.add_argument("--grpc-port", type=int, metavar="N", help="speak gRPC too, there (TensorFlow Serving's: 8500)")
    parser.add_argument("--access-log", action="store_true", help="log a line for every request")
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="json: one object a line")
