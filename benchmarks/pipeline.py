"""Pictures per second from JPEG files to training batches, beside `keras.utils.image_dataset_from_directory`.

    python benchmarks/pipeline.py --out benchmarks/results/pipeline.json

Photographs of 12 megapixels (4000 × 3000) and of 500 pixels (500 × 375) are made of scikit-learn's two, enlarged, with
a sensor's noise, at JPEG quality 90. Both pipelines, as they come, turn them into five epochs of shuffled float32
batches of 224 × 224 × 3, the whole picture scaled to the square, nothing augmented. Keras' decodes every picture in
every epoch. Ours decodes it once, before the first batch, shrinks large JPEGs while decoding, smooths when it scales
down (antialiased, which Keras' does not and which costs more than decoding a small picture) and keeps the pixels in
memory, up to 2 GiB. "once" is the first epoch with all that comes before it, "then" a later one, "all" the five.

The two take turns, each first in every second round; ratios are medians over rounds, by the clock and by the
processors' time, which other programs disturb less.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from command import given, write_record
from PIL import Image

from toolkit.cli.output import print_table
from toolkit.data import scan_folder
from toolkit.data.feed.arrays import BatchOptions
from toolkit.data.feed.pipeline import training_batches
from toolkit.data.feed.split import Subset
from toolkit.spec import Preprocessing

SIZE = 224
BATCH = 32
EPOCHS = 5
SETS = {"12 megapixels": ((4000, 3000), 64), "500 pixels": ((500, 375), 640)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (size, count) in SETS.items():
            folder = write_photographs(Path(scratch) / name.replace(" ", "-"), size, count)
            rows += [{"pictures": name} | row for row in measure(folder, arguments.rounds)]
    columns = ["pictures", "epochs", "ours_images_per_s", "keras_images_per_s", "ratio", "cpu_ratio"]
    print_table([[row[column] for column in columns] for row in rows], columns)
    report = {
        **given(),
        "size": [SIZE, SIZE],
        "batch": BATCH,
        "epochs": EPOCHS,
        "cores": os.cpu_count(),
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "rows": rows,
        "versions": {package: version(package) for package in ("keras", "tensorflow")},
    }
    write_record(report, arguments.out)


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    scanned = scan_folder(folder, remember=False)
    subset = Subset(tuple(str((folder / path).absolute()) for path in scanned.paths), scanned.labels)
    pipelines = {"ours": lambda seed: ours(subset, seed), "keras": lambda seed: theirs(folder, seed)}
    times: dict[str, list[np.ndarray]] = {name: [] for name in pipelines}
    for number in range(-1, rounds):  # the first round warms up
        for name in sorted(pipelines, reverse=number % 2 == 0):
            seconds = epochs(pipelines[name](number + 1), len(subset))
            if number >= 0:
                times[name].append(seconds)
    # (rounds, epochs, 2): by the clock and of the processors
    own, other = np.array(times["ours"]), np.array(times["keras"])
    phases = {"once": slice(0, 1), "then": slice(1, None), "all": slice(None)}
    return [
        {
            "epochs": phase,
            "files": len(subset),
            "mean_bytes": round(statistics.mean(os.path.getsize(path) for path in subset.paths)),
            "ours_images_per_s": per_second(own[:, part, 0], len(subset)),
            "keras_images_per_s": per_second(other[:, part, 0], len(subset)),
            "ratio": median_ratio(other[:, part, 0], own[:, part, 0]),
            "cpu_ratio": median_ratio(other[:, part, 1], own[:, part, 1]),
        }
        for phase, part in phases.items()
    ]


def ours(subset: Subset, seed: int) -> Iterator[int]:
    preprocessing = Preprocessing(size=(SIZE, SIZE), resize="stretch")
    for _, labels in training_batches(subset, preprocessing, BatchOptions(BATCH, seed)):
        yield len(labels)


def theirs(folder: Path, seed: int) -> Iterator[int]:
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), batch_size=BATCH, shuffle=True, seed=seed, verbose=False
    )
    for _, labels in batches.repeat():
        yield len(labels)


def epochs(batches: Iterator[int], num_pictures: int) -> np.ndarray:
    """Seconds of each epoch, by the clock and of the processors: (EPOCHS, 2)."""
    gc.collect()
    seconds = []
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(EPOCHS):
        count = 0
        while count < num_pictures:
            count += next(batches)
        assert count == num_pictures
        now, used = time.perf_counter(), time.process_time()
        seconds.append((now - wall, used - cpu))
        wall, cpu = now, used
    return np.array(seconds)


def per_second(seconds: np.ndarray, num_pictures: int) -> float:
    return round(float(num_pictures / np.median(seconds.mean(axis=1))), 1)


def median_ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    return round(float(np.median(numerators.sum(axis=1) / denominators.sum(axis=1))), 2)


def write_photographs(folder: Path, size: tuple[int, int], count: int) -> Path:
    from sklearn.datasets import load_sample_images

    images = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    for index in range(count):
        image = images[index % 2]
        left, top = int(rng.integers(0, image.width - 480)), int(rng.integers(0, image.height - 360))
        view = np.asarray(image.crop((left, top, left + 480, top + 360)).resize(size, Image.Resampling.BICUBIC))
        noisy = view + rng.normal(0, 4, view.shape[:2])[..., None].astype(np.float32)
        class_dir = folder / str(index % 2)
        class_dir.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(class_dir / f"{index:04d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
