"""A training step with freed memory kept, and with it handed back to the system, see `toolkit.allocator`.

    python benchmarks/allocator.py --out benchmarks/results/allocator.json

Each row is a network trained on random pictures. Every side runs in processes of its own, in turns; figures are medians
over them. Page faults are 4 KiB each that the system filled with zeros.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit.cli.output import print_table

#: Network, pictures in a batch, steps that are timed.
CASES = [("lenet5", 32, 300), ("resnet20", 64, 15), ("resnet18", 16, 6), ("googlenet", 8, 6)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, case = arguments.side
        return print(json.dumps(steps(side == "kept", *CASES[int(case)])))
    rows = [measure(index, arguments.rounds) for index in range(len(CASES))]
    columns = ["network", "batch", "handed_back_ms", "kept_ms", "ratio", "cpu_ratio", "faults_a_step", "peak_ratio"]
    print_table([[row[column] for column in columns] for row in rows], columns)
    report = {
        "command": f"python benchmarks/allocator.py --rounds {arguments.rounds}",
        "cores": os.cpu_count(),
        "c_library": " ".join(platform.libc_ver()),
        "rows": rows,
        "versions": {package: version(package) for package in ("keras", "tensorflow")},
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return None


def measure(index: int, rounds: int) -> dict[str, Any]:
    results: dict[str, list[dict[str, float]]] = {"handed_back": [], "kept": []}
    for _ in range(rounds):
        for side, own in results.items():
            own.append(run(side, index))
    back, kept = (
        {name: statistics.median(result[name] for result in own) for name in own[0]} for own in results.values()
    )
    name, batch, _ = CASES[index]
    return {
        "network": name,
        "batch": batch,
        "handed_back_ms": round(back["ms"], 1),
        "kept_ms": round(kept["ms"], 1),
        "ratio": round(back["ms"] / kept["ms"], 2),
        "cpu_ratio": round(back["cpu_ms"] / kept["cpu_ms"], 2),
        "faults_a_step": f"{back['faults']:,.0f} → {kept['faults']:,.0f}",
        "peak_ratio": round(kept["peak"] / back["peak"], 3),
    }


def run(side: str, index: int) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--side", side, str(index)]
    answer = subprocess.run(
        command, env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def steps(keep: bool, name: str, batch: int, count: int) -> dict[str, float]:
    from toolkit.allocator import keep_freed_memory

    if keep:
        assert keep_freed_memory(), "this C library has nothing to set"
    import numpy as np

    import toolkit
    from toolkit.training.loop import compile_model
    from toolkit.training.recipes import recipe

    info = toolkit.model_info(name)
    model = toolkit.create_model(name)
    compile_model(model, recipe(info.recipe), steps_per_epoch=count)
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(batch, *info.input_shape)).astype(np.float32)
    labels = rng.integers(0, info.num_classes, batch).astype(np.int32)

    def train(number: int) -> None:
        for _ in range(number):
            model.train_on_batch(pictures, labels)

    train(3)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    train(count)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "ms": 1e3 * wall / count,
        "cpu_ms": 1e3 * cpu / count,
        "faults": (after.ru_minflt - before.ru_minflt) / count,
        "peak": after.ru_maxrss,
    }


if __name__ == "__main__":
    main()
