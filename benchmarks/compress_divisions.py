"""Accuracy that int8 costs a fine-tuned network, over several divisions of a small folder of photographs.

    python benchmarks/compress_divisions.py --photos hymenoptera --weights googlenet_bvlc.caffemodel --out …

A network fine-tuned on a few hundred photographs is tested on so few that one of them is more than half a point. Here
the folder is divided anew several times, half of it to train on and three eighths to test; each time a new classifier
is fitted on cached features, and its float, int8 and quantization-aware trained files answer for the same test pictures
in LiteRT. The last row sums the divisions up.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import SHARES
from command import given, write_record

from toolkit import create_model
from toolkit.cli.output import print_table
from toolkit.compress import Retraining, quantize, quantize_aware_train
from toolkit.data import scan_folder, split_folder
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Split, Subset
from toolkit.engines.convert import to_litert
from toolkit.engines.runtimes import LiteRTEngine
from toolkit.factory import preprocessing_of
from toolkit.spec import Preprocessing
from toolkit.transfer import FinetuneOptions, finetune

FILES = ("float", "int8", "qat")
#: Weights that have only to settle: as in `benchmarks/compress.py`.
RETRAINING = Retraining(epochs=1, learning_rate=1e-5, batch_size=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="googlenet", help="a registered network with a dense classifier")
    parser.add_argument("--weights", type=Path, required=True, help="pretrained ones")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs by class")
    parser.add_argument("--divisions", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        folder = replace(scan_folder(arguments.photos), splits=())
        for seed in range(arguments.divisions):
            split = split_folder(folder, fractions=SHARES, seed=seed)
            rows.append({"division": str(seed + 1)} | measure(arguments, len(folder.class_names), split, cache))
            print(rows[-1], file=sys.stderr, flush=True)
    total = sum(row["n"] for row in rows)
    rows.append(
        {"division": "all", "n": total}
        | {
            key: round(sum(row[key] * row["n"] for row in rows) / total, 2)
            for key in rows[0]
            if key not in ("division", "n")
        }
    )
    print_table([list(row.values()) for row in rows], list(rows[0]))
    report = {
        **given(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "tensorflow-model-optimization")},
        "rows": rows,
    }
    write_record(report, arguments.out)


def measure(arguments: argparse.Namespace, num_classes: int, split: Split, cache: str) -> dict[str, Any]:
    """Per cent of the test pictures that each file gets right, and on which it agrees with the float file."""
    pretrained = create_model(arguments.model, num_classes=num_classes, weights=arguments.weights)
    preprocessing = preprocessing_of(pretrained)
    model = finetune(pretrained, split, preprocessing, cache_dir=cache, options=FinetuneOptions(unfreeze="none")).model
    files = {
        "float": to_litert(model),
        "int8": quantize(model, "int8", preprocessing=preprocessing, calibration=split.train),
        "qat": quantize_aware_train(
            model, preprocessing=preprocessing, train=split.train, validation=split.val, retraining=RETRAINING
        ),
    }
    labels = np.asarray(split.test.labels)
    answers = {name: predicted(content, split.test, preprocessing) for name, content in files.items()}
    return (
        {"n": len(labels)}
        | {name: percent(own == labels) for name, own in answers.items()}
        | {f"{name} agrees": percent(answers[name] == answers["float"]) for name in FILES[1:]}
    )


def predicted(content: bytes, subset: Subset, preprocessing: Preprocessing) -> np.ndarray:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.tflite"
        path.write_bytes(content)
        engine = LiteRTEngine(path, preprocessing)
        chunks = [subset.paths[start : start + 16] for start in range(0, len(subset), 16)]
        return np.concatenate([engine.probabilities(load_pixels(own, preprocessing)).argmax(axis=1) for own in chunks])


def percent(rights: np.ndarray) -> float:
    return round(100 * float(rights.mean()), 2)


if __name__ == "__main__":
    main()
