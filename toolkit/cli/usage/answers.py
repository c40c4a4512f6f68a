"""Options of the commands that put bundles to use."""

from pathlib import Path

from toolkit.cli.arguments import add_bundle, add_crops, add_data, add_engine, add_others, add_skip_bad, positive
from toolkit.cli.usage.command import Commands, add_command


def _evaluate(commands: Commands) -> None:
    parser = add_command(commands, "evaluate", "measure a bundle's accuracy on pictures that it did not learn from")
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


def _predict(commands: Commands) -> None:
    parser = add_command(commands, "predict", "classify pictures", json=False)
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


def _explain(commands: Commands) -> None:
    parser = add_command(
        commands, "explain", "show where in a picture the evidence for a class lies, and what a network saw"
    )
    kinds = "a bundle, a network (see `toolkit models`), or the file of one"
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


#: In the order of the page of help.
COMMANDS = (_evaluate, _predict, _explain)
