"""Every engine, side by side, on one network: milliseconds, pictures a second, bytes.

    python benchmarks/engines.py resnet50 --out benchmarks/results/engines-resnet50.json

Weights are random, which changes no timing, and so are the pictures int8 is calibrated on. Engines run in turn, the
whole round several times; the figures are medians over the rounds, and the speed-ups against the SavedModel are taken
within a round, because a shared machine's speed drifts.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from command import given, write_record
from PIL import Image

from toolkit import create_model, model_info
from toolkit.bundle import read_manifest
from toolkit.cli.output import print_table
from toolkit.data.feed.split import Subset
from toolkit.engines import available_engines, open_engine
from toolkit.engines.timing import latency
from toolkit.export import export_bundle
from toolkit.machine import instruction_sets, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a registered network")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = measure(arguments.model, arguments.batches, arguments.rounds, Path(directory))
    columns = ["engine", "batch", "median_ms", "images_per_s", "speedup", "bytes"]
    print_table([[row[column] for column in columns] for row in report["rows"]], columns)
    write_record(report, arguments.out)


def measure(model_name: str, batches: list[int], rounds: int, directory: Path) -> dict:
    bundle = export_random(model_name, directory)
    manifest = read_manifest(bundle)
    rng = np.random.default_rng(0)
    engines = {name: open_engine(name, bundle, manifest.preprocessing) for name in available_engines(bundle)}
    rows = []
    for batch in batches:
        pixels = rng.integers(0, 256, (batch, *manifest.preprocessing.size, 3), np.uint8)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, engine in engines.items():
                times[name].append(latency(engine, pixels, max_seconds=0.5)[0])
        for name in engines:
            ratios = [base / own for base, own in zip(times["savedmodel"], times[name], strict=True)]
            median = statistics.median(times[name])
            rows.append(
                {
                    "engine": name,
                    "batch": batch,
                    "median_ms": round(median, 3),
                    "images_per_s": round(1e3 * batch / median, 1),
                    "speedup": round(statistics.median(ratios), 2),
                    "bytes": size_of(bundle, name),
                }
            )
    return {
        **given(),
        "machine": {"processor": processor(), "instruction_sets": instruction_sets()},
        "versions": manifest.versions,
        "rows": rows,
    }


def export_random(model_name: str, directory: Path) -> Path:
    preprocessing = model_info(model_name).preprocessing
    rng = np.random.default_rng(1)
    paths = []
    for index in range(16):
        paths.append(str(directory / f"{index}.png"))
        Image.fromarray(rng.integers(0, 256, (*preprocessing.size, 3), np.uint8)).save(paths[-1])
    model = create_model(model_name)
    return export_bundle(
        model,
        directory / model_name,
        labels=tuple(f"class {i}" for i in range(model.output_shape[-1])),
        preprocessing=preprocessing,
        calibration=Subset(tuple(paths), (0,) * len(paths)),
    )


def size_of(bundle: Path, engine: str) -> int:
    from toolkit.engines import ENGINES

    file = bundle / ENGINES[engine].file
    files = [bundle / "saved_model.pb", *(bundle / "variables").iterdir()] if file == bundle else [file]
    return sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    main()
