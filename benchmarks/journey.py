"""Time the main journey's commands as a user runs them: fine-tune, export, compress.

    python benchmarks/journey.py DATA --weights FILE [--model googlenet] [--out journey.json]

Each command is a process of its own. The first fine-tuning fills the cache of features, those after it find them
there, so their time is that from features to a written bundle. Seconds, and processor seconds, are of the whole
command; ``load`` is how busy the machine was before it, in processes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from command import given, write_record

from toolkit.machine import processor


def run(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run one command of the package to its end, and measure it."""
    load, start = os.getloadavg()[0], time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "toolkit", *arguments]
    finished = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if finished.returncode:
        raise SystemExit(f"toolkit {' '.join(arguments)}: {finished.stderr.splitlines()[-1]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "processor_seconds": round(used, 1), "load": round(load, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder of pictures")
    parser.add_argument("--weights", required=True, help="a tag or a file")
    parser.add_argument("--model", default="googlenet")
    parser.add_argument("--out", type=Path, help="write what was measured as JSON")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="toolkit-journey-") as place:
        environment = {"TOOLKIT_CACHE": f"{place}/cache"}
        own = ["finetune", str(arguments.data), "--model", arguments.model, "--weights", arguments.weights, "--out"]
        rows["finetune, features computed"] = run([*own, f"{place}/first"], environment)
        rows["finetune, features cached"] = run([*own, f"{place}/again"], environment)
        rows["finetune --no-int8, features cached"] = run([*own, f"{place}/float", "--no-int8"], environment)
        compress = ["compress", f"{place}/float/1", "--data", str(arguments.data), "--force", "--method"]
        for method in ("int8", "prune", "qat"):
            rows[f"compress --method {method}"] = run([*compress, method], environment)
    for name, row in rows.items():
        print(f"{name:40} {row['seconds']:6.1f} s  {row['processor_seconds']:6.1f} s of processor time")
    machine = {"data": arguments.data.name, "model": arguments.model, "processor": processor()}
    write_record(given() | machine | {"commands": rows}, arguments.out)


if __name__ == "__main__":
    main()
