"""Options of the commands that make bundles, keep them in order, and make them smaller."""

from pathlib import Path

from toolkit.cli.arguments import (
    add_bundle,
    add_bundles_folder,
    add_crops,
    add_engine,
    add_export,
    add_formats,
    add_reading,
    add_skip_bad,
    positive,
)
from toolkit.cli.usage.command import Commands, add_action, add_command


def _ensemble(commands: Commands) -> None:
    parser = add_command(commands, "ensemble", "export bundles as one that averages them, over several views if asked")
    parser.add_argument(
        "bundles", nargs="+", type=Path, metavar="BUNDLE", help="with the same labels; one will do to export its views"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    add_crops(parser)
    parser.add_argument(
        "--data",
        type=Path,
        help="the pictures they were trained on: those that taught none tell its accuracy and its reject threshold",
    )
    add_reading(parser)
    add_export(parser)
    add_skip_bad(parser)


def _import_(commands: Commands) -> None:
    parser = add_command(commands, "import", "make a bundle of a classifier that somebody else trained")
    parser.set_defaults(handler="import_model")
    kinds = (
        "a .keras or .h5 file of a whole model, an .onnx or .tflite file, or a SavedModel's folder; or a network, see "
        "`toolkit models`, with --weights"
    )
    parser.add_argument("file", type=Path, metavar="FILE|NETWORK", help=kinds)
    published = "of a NETWORK: a tag, see `toolkit weights list`, or a file of weights"
    parser.add_argument("--weights", metavar="TAG|PATH", help=published)
    parser.add_argument("--out", required=True, type=Path, metavar="saved_models/NAME", help="the bundle")
    names = "class names in order, one a line; by default as the file brings them, or labels.txt beside it"
    parser.add_argument("--labels", type=Path, metavar="FILE", help=names)
    told = "what it was trained with, if its layers do not tell: imagenet, caffe, inception, none, or fields as JSON"
    parser.add_argument("--preprocessing", metavar="P", help=told)
    parser.add_argument("--data", type=Path, help="pictures to compare engines on, and to calibrate int8 with")
    add_reading(parser)
    add_export(parser)
    add_formats(parser)
    add_skip_bad(parser)


def _bundles(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bundles",
        "list, verify, label and prune bundles' versions, share requests out, and set the engine that one recommends",
        json=False,
    )
    parser.set_defaults(handler="manage_bundles")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_action(actions, "list", "every version in a directory: state, labels, accuracy, size, date, engines")
    add_bundles_folder(listing)
    shown = add_action(actions, "examples", "classify the pictures that a bundle brings, beside their true labels")
    add_bundle(shown)
    add_engine(shown)
    meant = "make `--engine recommended` mean this engine, at once also where the bundle is served"
    recommend = add_action(actions, "recommend", meant)
    add_bundle(recommend, written=True)
    recommend.add_argument("engine", metavar="ENGINE", help="such as litert-int8; see `toolkit benchmark BUNDLE`")
    untrusted = "even one whose accuracy was not measured, or was too low, when the bundle was written"
    recommend.add_argument("--force", action="store_true", help=untrusted)
    compared = "compare a version's files with their checksums, and its engines' answers with its network's"
    several = "; or a folder of bundles, for every version in it"
    add_bundle(add_action(actions, "verify", compared), further=several)
    promote = add_action(actions, "promote", "have a label mean a version, by default the canary's, else the highest")
    rollback = add_action(actions, "rollback", "have a label mean the version again that it meant before")
    for action in (promote, rollback):
        add_bundle(action, written=True)
        action.add_argument("--label", default="stable", metavar="L", help="default stable; canary, or any other name")
    rollback.add_argument("--remove", action="store_true", help="take the label away instead")
    shares = "have a label's version answer a share of a server's requests that name no version, and stable the rest"
    share = add_action(actions, "share", shares)
    add_bundle(share, written=True)
    share.add_argument(
        "share", nargs="?", type=float, metavar="SHARE", help="from 0 to 1; without it, tell who answers"
    )
    share.add_argument("--label", default="canary", metavar="L", help="default canary")
    share.add_argument("--end", action="store_true", help="have the highest version answer them again")
    prune = add_action(actions, "prune", "remove a bundle's old versions, but none with a label or to roll back to")
    add_bundle(prune, written=True)
    prune.add_argument("--keep", type=positive, default=3, metavar="N", help="highest versions (default 3)")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")


def _compress(commands: Commands) -> None:
    parser = add_command(
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


#: In the order of the page of help.
COMMANDS = (_ensemble, _import_, _bundles, _compress)
