"""Every way to compress LeNet-5, side by side: bytes, accuracy, agreement, milliseconds, operators.

    python benchmarks/compress.py --data MNIST --out benchmarks/results/compress-lenet5.json --page compress.html

MNIST is a folder with the four original IDX files, gzipped or not. A float network is trained for three epochs first;
everything is then measured on the 10,000 test pictures, of which no method sees any. Epochs of quantization-aware
training are chosen on the last 5,000 training pictures.
"""

import argparse
import gzip
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from toolkit import create_model, model_info
from toolkit.cli.output import print_table
from toolkit.compress import (
    Clustering,
    Pruning,
    Retraining,
    cluster,
    compression_report,
    layer_sensitivity,
    prune,
    quantize,
    quantize_aware_train,
    report_page,
)
from toolkit.compress.report import BATCHES
from toolkit.data.decode import normalize
from toolkit.engines.convert import to_litert
from toolkit.engines.runtimes import num_threads

MODEL = "lenet5"
PREPROCESSING = model_info(MODEL).preprocessing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST's IDX files")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--page", type=Path, help="write the report as HTML")
    arguments = parser.parse_args()
    pixels, labels = read_mnist(arguments.data, "train")
    train, held_out = (pixels[:-5000], labels[:-5000]), (pixels[-5000:], labels[-5000:])
    model = trained(*train)
    files, seconds = compressed(model, train, held_out)
    report = compression_report(
        model, files, preprocessing=PREPROCESSING, evaluation=read_mnist(arguments.data, "t10k")
    )
    report |= {
        "command": "python benchmarks/compress.py --data MNIST",
        "threads": num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("keras", "tensorflow", "tensorflow-model-optimization", "openvino")},
        "seconds": seconds,
        "sensitivity": {
            row.layer: row.decibels for row in layer_sensitivity(model, train, preprocessing=PREPROCESSING)
        },
    }
    show(report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.page:
        arguments.page.write_text(report_page(report))


def trained(pixels: np.ndarray, labels: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = create_model(MODEL)
    steps = 3 * -(-len(pixels) // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(normalize(pixels, PREPROCESSING), labels, batch_size=128, epochs=3, verbose=2)
    return model


def compressed(model: keras.Model, train: Any, held_out: Any) -> tuple[dict[str, bytes], dict[str, float]]:
    """LiteRT files by method, and the seconds each took."""
    data: dict[str, Any] = {"preprocessing": PREPROCESSING, "train": train}
    slow = Retraining(epochs=2, learning_rate=1e-4, batch_size=64)
    fast = Retraining(epochs=3, learning_rate=1e-3, batch_size=64)  # lost weights have to be made up for
    pruned = prune(model, Pruning(0.8), retraining=fast, **data)
    clustered = cluster(model, Clustering(16), retraining=slow, **data)
    sparse_clustered = cluster(pruned, Clustering(16, preserve_sparsity=True), retraining=slow, **data)

    def post(method: str) -> bytes:
        return quantize(model, method, preprocessing=PREPROCESSING, calibration=train)

    def aware(network: keras.Model, preserve: str) -> bytes:
        return quantize_aware_train(network, preserve=preserve, validation=held_out, retraining=slow, **data)

    methods = {
        "dynamic": lambda: post("dynamic"),
        "float16": lambda: post("float16"),
        "int8": lambda: post("int8"),
        "int16x8": lambda: post("int16x8"),
        "qat": lambda: aware(model, "none"),
        "prune 80 %": lambda: to_litert(pruned),
        "prune 2:4": lambda: to_litert(prune(model, Pruning(0.5, pattern="2:4"), retraining=fast, **data)),
        "prune blocks": lambda: to_litert(prune(model, Pruning(0.5, pattern="block"), retraining=fast, **data)),
        "cluster 16": lambda: to_litert(clustered),
        "prune, cluster": lambda: to_litert(sparse_clustered),
        "prune, qat": lambda: aware(pruned, "sparsity"),
        "cluster, qat": lambda: aware(clustered, "clusters"),
        "prune, cluster, qat": lambda: aware(sparse_clustered, "both"),
    }
    files, seconds = {}, {}
    for name, make in methods.items():
        start = time.perf_counter()
        files[name] = make()
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name}: {seconds[name]} s", flush=True)
    return files, seconds


def show(report: dict[str, Any]) -> None:
    header = ["method", "bytes", "gzip", "top-1 %", "agreement %", *(f"ms ×{batch}" for batch in BATCHES), "float ops"]
    rows = []
    for row in report["rows"]:
        times = [min(t["p50_ms"] for t in row["latency"] if t["batch"] == batch) for batch in BATCHES]
        float_operators = len(row["operators"]["float_outputs"])
        accuracy = [100 * row["top1"], 100 * row["agreement"]]
        rows.append([row["method"], row["bytes"], row["gzip_bytes"], *accuracy, *times, float_operators])
    print_table(rows, header)
    for row in report["rows"]:
        print(f"- {row['verdict']}")


def read_mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 32, 32, 3), the pictures in the middle of a black border, and labels."""
    images, labels = (next(folder.glob(f"{part}-{kind}-idx*-ubyte*")) for kind in ("images", "labels"))

    def read(path: Path, offset: int) -> np.ndarray:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return np.frombuffer(data, np.uint8, offset=offset)

    pictures = np.pad(read(images, 16).reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    return np.repeat(pictures[..., None], 3, axis=-1), read(labels, 8).astype(np.int32)


if __name__ == "__main__":
    main()
