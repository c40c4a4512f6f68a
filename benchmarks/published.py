"""Published weights scored on pictures of ImageNet's classes that are at hand, all of it by commands.

    python benchmarks/published.py googlenet --weights googlenet_bvlc.caffemodel --labels synset_words.txt \\
        --pictures ILSVRC2012_img_val --imagenet ILSVRC2012_devkit_t12 --out benchmarks/results/published.json

Without `--imagenet` the pictures are in a folder per synset; `--classes ants=n02219486` takes `ants` for one. A row
is added to the file, or takes the place of the one for the same network, weights and pictures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command import write_record

from toolkit.machine import instruction_sets, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--weights", required=True, help="a tag, or a file")
    parser.add_argument("--labels", required=True, type=Path, help="a line `n01440764 tench, …` for each output")
    parser.add_argument("--pictures", required=True, type=Path)
    parser.add_argument("--imagenet", type=Path, help="the devkit, where the pictures are flat")
    parser.add_argument("--classes", nargs="+", default=[], metavar="FOLDER=SYNSET")
    parser.add_argument("--out", required=True, type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        row = measure(arguments, Path(scratch))
    print(row)
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": []}
    key = ("network", "weights", "pictures")
    known["rows"] = [other for other in known["rows"] if any(other[name] != row[name] for name in key)] + [row]
    write_record(known, arguments.out)


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    bundle, pictures = scratch / "bundle", arguments.pictures.absolute()
    if arguments.classes:
        (scratch / "pictures").mkdir()
        for pair in arguments.classes:
            folder, _, synset = pair.partition("=")
            (scratch / "pictures" / synset).symlink_to(pictures / folder)
        pictures = scratch / "pictures"
    weights = str(arguments.weights)
    toolkit("import", arguments.network, "--weights", weights, "--labels", str(arguments.labels), "--out", str(bundle))
    devkit = ["--imagenet", str(arguments.imagenet)] if arguments.imagenet else []
    report = toolkit("evaluate", str(bundle), str(pictures), "--subset", "all", *devkit)
    told = [Path(weights).name, arguments.labels.name, "/".join(arguments.pictures.absolute().parts[-2:])]
    given = f" --imagenet {arguments.imagenet.name}" if arguments.imagenet else ""
    given += f" --classes {' '.join(arguments.classes)}" if arguments.classes else ""
    return {
        "network": arguments.network,
        "weights": told[0],
        "pictures": told[2],
        "command": "python benchmarks/published.py {} --weights {} --labels {} --pictures {}{}".format(
            arguments.network, *told, given
        ),
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "instruction_sets": instruction_sets()},
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in ("toolkit", "keras", "tensorflow", "numpy")},
        "engine": report["engine"],
        "n": report["n"],
        "classes": sum(share is not None for share in report["per_class"].values()),
        "top1": round(100 * report["top1"], 2),
        "top5": round(100 * report["top5"], 2),
    }


def toolkit(*command: str) -> dict[str, Any]:
    answer = subprocess.run([sys.executable, "-m", "toolkit", *command, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(answer.stdout)


if __name__ == "__main__":
    main()
