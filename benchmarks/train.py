"""Test error of a network by its recipe, and the time that takes, imports included.

    python benchmarks/train.py lenet5 path/to/mnist --out benchmarks/results/train-lenet5-mnist.json

The data may be anything `toolkit train` reads: class folders, a CSV, an archive, MNIST's four IDX files. Its test
pictures are seen once, after training.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command import write_record

from toolkit.cli.output import print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", help="by default the network's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(arguments, Path(scratch) / "run")
    columns = ["model", "epochs", "test_pictures", "test_error_percent", "seconds", "cpu_seconds", "peak_mib"]
    print_table([[report[column] for column in columns]], columns)
    write_record(report, arguments.out)


def measure(arguments: argparse.Namespace, run: Path) -> dict[str, Any]:
    options = ["--recipe", arguments.recipe] if arguments.recipe else []
    options += [part for setting in arguments.set for part in ("--set", setting)]
    command = ["train", str(arguments.data), "--model", arguments.model, "--out", str(run), *options, "--json"]
    start = time.perf_counter()
    answer = subprocess.run([sys.executable, "-m", "toolkit", *command], stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = json.loads(answer.stdout)["metrics"]
    config = json.loads((run / "config.json").read_text())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"toolkit train {arguments.data.name} --model {arguments.model} {' '.join(options)}".rstrip(),
        "model": arguments.model,
        "config": config,
        "epochs": len((run / "metrics.jsonl").read_text().splitlines()),
        "test_pictures": metrics["n"],
        "test_error_percent": round(100 * (1 - metrics["top1"]), 2),
        "subset": metrics["subset"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": used.ru_maxrss // 1024,
        "cores": os.cpu_count(),
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in ("toolkit", "keras", "tensorflow", "numpy")},
    }


if __name__ == "__main__":
    main()
