"""Time and memory of `toolkit check` on many small pictures: with nothing remembered, and again.

    python benchmarks/scan.py [FOLDER] --out benchmarks/results/scan.json

FOLDER holds class folders, such as the 50,000 training pictures of CIFAR-10 as JPEGs; without one, as many JPEGs of the
same size are cut out of scikit-learn's two photographs. Each row is one whole command in a process of its own.
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

import numpy as np
from command import given, write_record
from PIL import Image

from toolkit.cli.output import print_table

NUM_PICTURES = 50_000
NUM_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or write_pictures(Path(scratch) / "pictures")
        report = measure(folder, Path(scratch) / "cache")
    report["data"] = arguments.folder.name if arguments.folder else "cut out of scikit-learn's photographs"
    columns = ["run", "wall_s", "cpu_s", "peak_mb"]
    print_table([[row[column] for column in columns] for row in report["rows"]], columns)
    write_record(report, arguments.out)


def measure(folder: Path, cache: Path) -> dict[str, Any]:
    rows = []
    for run in ("first", "again"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        command = [sys.executable, "-c", RUN, "check", str(folder), "--json"]
        answer = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | {"TOOLKIT_CACHE": str(cache)}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows.append(
            {
                "run": run,
                "wall_s": round(time.perf_counter() - started, 1),
                "cpu_s": round(cpu, 1),
                "peak_mb": round(int(answer.stderr.split()[-1]) / 1024),
            }
        )
        findings = json.loads(answer.stdout)
    return {
        **given(),
        "num_pictures": findings["n"],
        "near_duplicate_groups": len(findings["near_duplicates"]),
        "cores": os.cpu_count(),
        "load_at_start": [round(value, 1) for value in os.getloadavg()],
        "rows": rows,
        "versions": {package: version(package) for package in ("numpy", "pillow")},
    }


# The command, and then the peak of its own memory; that of all children would be that of the first.
RUN = """
import resource, sys
from toolkit.cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def write_pictures(folder: Path) -> Path:
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images
    rng = np.random.default_rng(0)
    for index in range(NUM_PICTURES):
        class_dir = folder / str(index % NUM_CLASSES)
        class_dir.mkdir(parents=True, exist_ok=True)
        image = images[index % len(images)]
        top, left = rng.integers(0, image.shape[0] - 32), rng.integers(0, image.shape[1] - 32)
        Image.fromarray(image[top : top + 32, left : left + 32]).save(class_dir / f"{index:05d}.jpg", quality=95)
    return folder


if __name__ == "__main__":
    main()
