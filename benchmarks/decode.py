"""Milliseconds from an encoded picture to the network's pixels, how threads scale, and how near the served graph is.

    python benchmarks/decode.py --threads 2 --out benchmarks/results/decode.json
    python benchmarks/decode.py FOLDER... --weights FILE.caffemodel --out benchmarks/results/decode.json

Photographs of 500 pixels and of 12 megapixels as `benchmarks/pipeline.py` makes them are decoded to 224 × 224 by the
host's decoder, by Keras' loader (`keras.utils.load_img` and a resize that is not antialiased, as
`image_dataset_from_directory` does it, in TensorFlow) and by Pillow (decoded at a suitable scale, resized by its own
8-bit filter), a picture at a time in one thread; then the host's in several threads. Rounds alternate, ratios are of
processor time within a round; what threads gain is by the clock, and wants a machine that does nothing else.

Of folders given, every picture is decoded by the host and by the graph that a bundle serves with: the share of pixels
that differ, and, given GoogLeNet's weights, what that does to its answers.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from command import given, write_record
from PIL import Image
from pipeline import SETS, SIZE, write_photographs

from toolkit import create_model
from toolkit.cli.output import print_table
from toolkit.data import scan_folder
from toolkit.data.pixels import decode, graph
from toolkit.factory import preprocessing_of
from toolkit.machine import instruction_sets, num_threads, processor
from toolkit.spec import Preprocessing

_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="class folders whose pictures both ways are compared on")
    parser.add_argument("--weights", type=Path, help="GoogLeNet's, to compare its answers as well")
    parser.add_argument("--pictures", type=int, default=200, help="at most so many of each folder")
    parser.add_argument("--rounds", type=int, default=5, help="0 times nothing")
    parser.add_argument("--threads", type=int, default=num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    times = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (size, count) in SETS.items() if arguments.rounds else ():
            folder = write_photographs(Path(scratch) / name.replace(" ", "-"), size, min(count, 200))
            pictures = [path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))]
            times.append({"pictures": name, **measure(pictures, arguments.rounds, arguments.threads)})
    if times:
        print_table([list(row.values()) for row in times], list(times[0]))
    nearness = [compare(folder, arguments.weights, arguments.pictures) for folder in arguments.folders]
    if nearness:
        print_table([list(row.values()) for row in nearness], list(nearness[0]))
    report = {
        **given(),
        "size": [SIZE, SIZE],
        "machine": {"processor": processor(), "instruction_sets": instruction_sets()},
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in ("keras", "numpy", "pillow", "tensorflow")},
        "times": times,
        "nearness": nearness,
    }
    write_record(report, arguments.out)


def measure(pictures: list[bytes], rounds: int, threads: int) -> dict[str, Any]:
    """Time the ways in turn: milliseconds of processor time a picture, and what more threads gain."""
    preprocessing = Preprocessing(size=(SIZE, SIZE), resize="stretch")
    ways: dict[str, Callable[[bytes], Any]] = {
        "ours": lambda data: decode.decode_pixels(data, preprocessing),
        "keras": as_keras,
        "pillow": as_pillow,
    }
    for way in ways.values():
        way(pictures[0])
    own: dict[str, list[float]] = {name: [] for name in ways}
    gains, rates = [], []
    for number in range(rounds):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            start = time.process_time()
            for data in pictures:
                ways[name](data)
            own[name].append(time.process_time() - start)
        alone, together = (clock(ways["ours"], pictures, count) for count in (1, threads))
        gains.append(alone / together)
        rates.append(len(pictures) / together)
    of_keras = [ours / theirs for ours, theirs in zip(own["ours"], own["keras"], strict=True)]
    return {
        **{f"{name}_cpu_ms": round(1e3 * statistics.median(values) / len(pictures), 2) for name, values in own.items()},
        "of_keras": round(statistics.median(of_keras), 2),
        "threads": threads,
        "images_per_s": round(statistics.median(rates), 1),
        "gain_per_thread": round(statistics.median(gains) / threads, 2),
    }


def clock(way: Callable[[bytes], Any], pictures: list[bytes], threads: int) -> float:
    """Seconds for all pictures in so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(way, pictures))
        return time.perf_counter() - start


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def as_keras(data: tf.Tensor) -> tf.Tensor:
    """Decode and resize a file's bytes as `keras.utils.image_dataset_from_directory` does."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image = tf.image.resize(image, (SIZE, SIZE), method="bilinear")
    image.set_shape((SIZE, SIZE, 3))
    return image


def as_pillow(data: bytes) -> np.ndarray:
    """Pillow alone: decoded at a suitable scale, resized by its own filter."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (2 * SIZE, 2 * SIZE))
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def compare(folder: Path, weights: Path | None, most: int) -> dict[str, Any]:
    """Measure the difference between the host's pixels and the served graph's, and between the answers to them."""
    model = create_model("googlenet", weights=weights) if weights else None
    preprocessing = preprocessing_of(model) if model else Preprocessing(size=(SIZE, SIZE), crop_fraction=0.875)
    in_graph = tf.function(lambda data: graph.decode_pixels(data, preprocessing))
    scanned = scan_folder(folder)
    paths = [scanned.root / path for path in scanned.paths[:: max(1, len(scanned) // most)][:most]]
    host = np.stack([decode.decode_pixels(path, preprocessing) for path in paths])
    served = np.stack([in_graph(tf.constant(path.read_bytes())).numpy() for path in paths])
    differences = np.abs(host.astype(np.int16) - served)
    row = {
        "pictures": folder.name,
        "number": len(paths),
        "largest_difference": int(differences.max()),
        "differ_percent": round(100 * float(np.mean(differences > 0)), 3),
        "differ_by_more_than_one_percent": round(100 * float(np.mean(differences > 1)), 4),
    }
    if model is None:
        return row
    first, second = (
        tf.nn.softmax(model.predict(decode.normalize(pixels, preprocessing), batch_size=_BATCH, verbose=0)).numpy()
        for pixels in (host, served)
    )
    return row | {
        "largest_difference_of_probabilities": round(float(np.abs(first - second).max()), 5),
        "same_top1_percent": round(100 * float(np.mean(first.argmax(1) == second.argmax(1))), 2),
    }


if __name__ == "__main__":
    main()
