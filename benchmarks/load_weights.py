"""Time and memory to fill a network from a file, beyond building it.

    python benchmarks/load_weights.py resnet152 --out benchmarks/results/load-resnet152.json

Each format is read in a process of its own, several times in turn, because a shared machine's speed drifts; figures are
medians. ``peak`` is the largest resident memory while filling, less what the process held with the network built, as a
multiple of the file; a file mapped into memory counts. Linux only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command import given, write_record

from toolkit.cli.output import print_table

_CHILD = """
import json, sys, time
from pathlib import Path
from toolkit import create_model, load_weights

def kilobytes(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])

start = time.perf_counter()
model = create_model(sys.argv[1])
built = time.perf_counter()
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
before = kilobytes("VmRSS")
load_weights(model, sys.argv[2])
filled = time.perf_counter()
peak = 1024 * (kilobytes("VmHWM") - before)
print(json.dumps({"build_s": built - start, "fill_s": filled - built, "peak_bytes": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet152")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    report = measure(arguments.model, arguments.rounds)
    columns = ["format", "bytes", "build_s", "fill_s", "peak"]
    print_table([[row[column] for column in columns] for row in report["rows"]], columns)
    write_record(report, arguments.out)


def measure(name: str, rounds: int) -> dict[str, Any]:
    from toolkit import create_model
    from toolkit.factory import save_weights

    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, "weights.safetensors"), Path(directory, "weights.weights.h5")]
        model = create_model(name)
        for file in files:
            save_weights(model, file)
        runs: dict[Path, list[dict[str, float]]] = {file: [] for file in files}
        for _ in range(rounds):
            for file in files:
                runs[file].append(_run(name, file))
        rows = [_row(file, runs[file]) for file in files]
    return {
        **given(),
        "model": name,
        "rows": rows,
        "versions": {package: version(package) for package in ("keras", "tensorflow", "safetensors")},
    }


def _run(name: str, file: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _CHILD, name, str(file)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _row(file: Path, runs: list[dict[str, float]]) -> dict[str, Any]:
    size = file.stat().st_size
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {
        "format": file.name.removeprefix("weights."),
        "bytes": size,
        "build_s": round(median["build_s"], 2),
        "fill_s": round(median["fill_s"], 2),
        "peak": round(median["peak_bytes"] / size, 2),
    }


if __name__ == "__main__":
    main()
