"""Features, answers and accuracies of many photographs beside what decoding and the engine cost by themselves.

    python benchmarks/extract.py --model resnet50 --bundle saved_models/flowers --out benchmarks/results/extract.json

- *features*: the frozen part's, into an empty cache, as ``toolkit finetune`` computes them; the engine is open;
- *predict*: ``Predictor.answers`` over the files, as ``toolkit predict FOLDER`` does;
- *evaluate*: ``toolkit evaluate`` of the folder, which was scanned before.

The *floor* of each is the processor time of decoding all files, one after the other, and of the engine's answers to
their pixels, in batches of the same size, shared among the cores: less is not possible by overlapping them. "of_floor"
is the time by the clock in floors, so run it where nothing else runs; the three are measured in turn, and medians over
rounds are told. Photographs are scikit-learn's two, cut and mirrored, 500 pixels wide.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from command import given, write_record
from finetune import write_photos

from toolkit import create_model
from toolkit.cli.output import print_table
from toolkit.data import scan_folder
from toolkit.data.pixels.decode import decode_pixels
from toolkit.engines.extract import default_batch_size, open_extractor
from toolkit.factory import preprocessing_of
from toolkit.inference import Predictor
from toolkit.inference.evaluate import evaluate_bundle
from toolkit.machine import instruction_sets, num_threads, processor
from toolkit.network import as_float32
from toolkit.transfer.features import FeatureExtractor
from toolkit.transfer.freeze import cut_tensor, frozen_part

#: Files that open the engine before the clock starts.
_FIRST = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="whose features are computed, from random weights")
    parser.add_argument("--bundle", help="what answers and is evaluated; else features alone are measured")
    parser.add_argument("--engine", default="openvino", help="of the bundle")
    parser.add_argument("--count", type=int, default=1000, help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_photos(None, Path(scratch) / "photos", arguments.count, 0)
        rows = [{"way": "features", **of_features(arguments, files(Path(scratch) / "photos"), Path(scratch))}]
        if arguments.bundle:
            rows += of_bundle(arguments, Path(scratch) / "photos")
    print_table([[row[name] for name in rows[0]] for row in rows], list(rows[0]))
    report = {
        **given(),
        "network": arguments.model,
        "bundle": Path(arguments.bundle).name if arguments.bundle else None,
        "photographs": arguments.count,
        "processor": processor(),
        "instruction_sets": instruction_sets(),
        "cores": num_threads(),
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in ("keras", "numpy", "openvino", "pillow")},
        "rows": rows,
    }
    write_record(report, arguments.out)


def of_features(arguments: argparse.Namespace, paths: list[str], scratch: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    model = create_model(arguments.model)
    preprocessing, batch_size = preprocessing_of(model), default_batch_size()
    seconds = []
    for number in range(arguments.rounds):
        with FeatureExtractor(model, preprocessing, cache_dir=scratch / f"cache{number}") as extractor:
            extractor.extract(paths[:_FIRST])
            seconds.append(clock(lambda: extractor.extract(paths[_FIRST:])))
    pixels, decoding = decoded(lambda path: decode_pixels(path, preprocessing), paths[_FIRST:])
    frozen = as_float32(frozen_part(model, cut_tensor(model, None)))
    engine = open_extractor(frozen, preprocessing, np.stack(pixels[:4]), batch_size=batch_size)
    computing = answered(lambda batch: engine.answers(np.stack(batch)), pixels, batch_size)
    return {
        "engine": f"{engine.name} {engine.precision}",
        **compared(len(paths) - _FIRST, seconds, decoding, computing),
    }


def of_bundle(arguments: argparse.Namespace, photos: Path) -> list[dict[str, Any]]:
    predictor = Predictor.load(arguments.bundle, arguments.engine)
    for part in photos.iterdir():  # what is timed does not look at whether they are of these classes
        for own, label in zip(sorted(part.iterdir()), predictor.labels, strict=False):
            own.rename(part / label)
    folder = scan_folder(photos, class_names=predictor.labels)
    paths = files(photos)
    ways: dict[str, Callable[[], Any]] = {
        "predict": lambda: list(predictor.answers(paths)),
        "evaluate": lambda: evaluate_bundle(predictor, folder, subset="all"),
    }
    predictor.probabilities(paths[:_FIRST])
    seconds = {way: [clock(call) for _ in range(arguments.rounds)] for way, call in ways.items()}
    pixels, decoding = decoded(predictor.decode, paths)
    computing = answered(predictor.answer_decoded, pixels, min(32, predictor.pictures_at_once))
    return [
        {"way": way, "engine": predictor.engine_name, **compared(len(paths), values, decoding, computing)}
        for way, values in seconds.items()
    ]


def files(photos: Path) -> list[str]:
    return sorted(str(path) for path in photos.rglob("*.jpg"))


def clock(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def decoded(decode: Callable[[str], Any], paths: Sequence[str]) -> tuple[list[Any], float]:
    """Decode files one after the other: their pixels, and the processor time of all."""
    start = time.process_time()
    return [decode(path) for path in paths], time.process_time() - start


def answered(answer: Callable[[list[Any]], Any], pixels: list[Any], batch_size: int) -> float:
    """Give the processor time of an engine's answers, which as many threads as there are cores ask for."""
    batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    with ThreadPoolExecutor(num_threads()) as pool:
        start = time.process_time()
        list(pool.map(answer, batches))
        return time.process_time() - start


def compared(count: int, seconds: list[float], decoding: float, computing: float) -> dict[str, Any]:
    floor = (decoding + computing) / num_threads()
    return {
        "seconds": round(statistics.median(seconds), 2),
        "images_per_s": round(count / statistics.median(seconds), 1),
        "decoding_cpu_s": round(decoding, 2),
        "engine_cpu_s": round(computing, 2),
        "floor_s": round(floor, 2),
        "of_floor": round(statistics.median(seconds) / floor, 2),
    }


if __name__ == "__main__":
    main()
