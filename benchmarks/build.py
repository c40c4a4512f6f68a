"""Time to build a network here and in keras.applications, in turn, and the ratios.

    python benchmarks/build.py resnet152 --out benchmarks/results/build-resnet152.json

A round builds the network as ``create_model`` gives it, its variant that keras.applications has (v1, biased), and
keras.applications' own, each first in every third round, because a shared machine's speed drifts. Weights are fresh.
Ratios are medians over the rounds of processor time, which other programs disturb less than they do the clock.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
from command import given, write_record

from toolkit import create_model
from toolkit.cli.output import print_table

REFERENCES = {"resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet152", choices=sorted(REFERENCES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    report = measure(arguments.model, arguments.rounds)
    columns = ["build", "wall_s", "cpu_s", "cpu_ratio", "wall_ratio"]
    print_table([[row[column] for column in columns] for row in report["rows"]], columns)
    write_record(report, arguments.out)


def measure(name: str, rounds: int) -> dict[str, Any]:
    reference = getattr(keras.applications, REFERENCES[name])
    builds: dict[str, Callable[[], Any]] = {
        "default": lambda: create_model(name),
        "v1, biased": lambda: create_model(name, version="v1", use_bias=True, epsilon=1.001e-5),
        "keras.applications": lambda: reference(weights=None, classifier_activation=None),
    }
    order = list(builds)
    times: dict[str, list[tuple[float, float]]] = {build: [] for build in builds}
    for build in builds.values():
        build()  # imports, first kernels
    for number in range(rounds):
        first = number % len(order)
        for build in order[first:] + order[:first]:
            times[build].append(seconds(builds[build]))
    rows = []
    for build, own in times.items():
        ratios = [[a / b for a, b in zip(x, y, strict=True)] for x, y in zip(own, times[order[-1]], strict=True)]
        wall, cpu, wall_ratio, cpu_ratio = (
            round(statistics.median(column), 3)
            for column in zip(*[(*o, *r) for o, r in zip(own, ratios, strict=True)], strict=True)
        )
        rows.append({"build": build, "wall_s": wall, "cpu_s": cpu, "cpu_ratio": cpu_ratio, "wall_ratio": wall_ratio})
    return {
        **given(),
        "model": name,
        "rows": rows,
        "versions": {package: version(package) for package in ("keras", "tensorflow")},
    }


def seconds(build: Callable[[], Any]) -> tuple[float, float]:
    """By the clock and of the processors."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    build()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
