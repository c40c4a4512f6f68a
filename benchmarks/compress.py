"""Every way to compress a network, side by side: bytes, accuracy, agreement, milliseconds, operators.

    python benchmarks/compress.py lenet5 --data MNIST --out benchmarks/results/compress-lenet5.json --page compress.html
    python benchmarks/compress.py resnet20 --data CIFAR --weights resnet20-12fca82f.th --methods dynamic int8 qat
    python benchmarks/compress.py googlenet --data ANTS_AND_BEES --weights googlenet_bvlc.caffemodel --methods int8 qat

MNIST is a folder with the four original IDX files, gzipped or not; LeNet-5 is trained on it for three epochs first.
CIFAR holds ``train/CLASS/`` and ``test/CLASS/`` with CIFAR-10's pictures as files; ResNet-20 comes trained, as
published. GoogLeNet gets a new classifier first, for any folder of pictures that ``toolkit finetune`` takes.

Everything is measured on pictures of which no method sees any: the 10,000 test pictures, or the folder's held-out ones.
Epochs of quantization-aware training are chosen on validation pictures that it does not train on either.
"""

import argparse
import gzip
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from command import given, write_record

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
from toolkit.compress.examples import Examples
from toolkit.compress.report import BATCHES
from toolkit.data import scan_folder, split_folder
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.engines.convert import to_litert
from toolkit.factory import preprocessing_of
from toolkit.machine import num_threads
from toolkit.spec import Preprocessing
from toolkit.transfer import FinetuneOptions, finetune
from toolkit.workflows.compress.pictures import training_parts


@dataclass(frozen=True)
class Subject:
    """A trained network and its pictures.

    Attributes:
        origin: where its weights are from, in words.
        careful: how to train on where the weights only have to settle.
        bold: how to train on where lost weights have to be made up for.
    """

    model: keras.Model
    preprocessing: Preprocessing
    train: Examples
    validation: Examples
    evaluation: Examples
    origin: str
    careful: Retraining
    bold: Retraining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(SUBJECTS))
    parser.add_argument("--data", type=Path, required=True, help="see above")
    parser.add_argument("--weights", type=Path, help="of resnet20 and googlenet")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="M")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--sensitivity", action="store_true", help="and what each layer alone costs in int8")
    parser.add_argument("--untimed", action="store_true", help="without times, where the machine is busy with others")
    parser.add_argument("--page", type=Path, help="write the report as HTML")
    arguments = parser.parse_args()
    if arguments.network != "lenet5" and not arguments.weights:
        parser.error(f"{arguments.network} needs --weights")
    subject = SUBJECTS[arguments.network](arguments.data, arguments.weights)
    files, seconds = compressed(subject, arguments.methods)
    report = compression_report(
        subject.model, files, preprocessing=subject.preprocessing, evaluation=subject.evaluation
    )
    report |= {
        "weights": subject.origin,
        **given(),
        "threads": num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("keras", "tensorflow", "tensorflow-model-optimization", "openvino")},
        "seconds": seconds,
    }
    if arguments.sensitivity:
        ranking = layer_sensitivity(subject.model, subject.train, preprocessing=subject.preprocessing)
        report["sensitivity"] = {row.layer: row.decibels for row in ranking}
    show(report)
    if arguments.untimed:
        report = without_times(report)
    write_record(report, arguments.out)
    if arguments.page:
        arguments.page.write_text(report_page(report))


def lenet5(data: Path, weights: Path | None) -> Subject:
    pixels, labels = read_mnist(data, "train")
    train, validation = (pixels[:-5000], labels[:-5000]), (pixels[-5000:], labels[-5000:])
    preprocessing = model_info("lenet5").preprocessing
    keras.utils.set_random_seed(0)
    model = create_model("lenet5")
    steps = 3 * -(-len(train[0]) // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(normalize(train[0], preprocessing), train[1], batch_size=128, epochs=3, verbose=2)
    return Subject(
        model,
        preprocessing,
        train,
        validation,
        read_mnist(data, "t10k"),
        "trained here for 3 epochs",
        careful=Retraining(epochs=2, learning_rate=1e-4, batch_size=64),
        bold=Retraining(epochs=3, learning_rate=1e-3, batch_size=64),
    )


def resnet20(data: Path, weights: Path | None) -> Subject:
    model = create_model("resnet20", weights=weights)
    train = image_files(data / "train")
    return Subject(
        model,
        preprocessing_of(model),
        every(train, 2000),
        every(train, 1000, start=1),
        image_files(data / "test"),
        f"published, {weights.name if weights else ''}",
        careful=Retraining(epochs=1, learning_rate=1e-5, batch_size=50),
        bold=Retraining(epochs=3, learning_rate=1e-4, batch_size=50),
    )


def googlenet(data: Path, weights: Path | None) -> Subject:
    folder = scan_folder(data)
    split = split_folder(folder)
    pretrained = create_model("googlenet", num_classes=len(folder.class_names), weights=weights)
    preprocessing = preprocessing_of(pretrained)
    with tempfile.TemporaryDirectory() as cache:
        options = FinetuneOptions(unfreeze="none")
        model = finetune(pretrained, split, preprocessing, cache_dir=cache, options=options).model
    return Subject(
        model,
        preprocessing,
        *training_parts(split),
        split.held_out[1],
        f"{weights.name if weights else ''}, fine-tuned here",
        careful=Retraining(epochs=1, learning_rate=1e-5, batch_size=8),
        bold=Retraining(epochs=3, learning_rate=1e-4, batch_size=8),
    )


SUBJECTS: dict[str, Callable[[Path, Path | None], Subject]] = {
    "lenet5": lenet5,
    "resnet20": resnet20,
    "googlenet": googlenet,
}


class Methods:
    """Each way to compress a subject; what several build on is made once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.data: dict[str, Any] = {"preprocessing": subject.preprocessing, "train": subject.train}
        self._networks: dict[str, keras.Model] = {}

    def post(self, method: Any) -> bytes:
        subject = self.subject
        return quantize(subject.model, method, preprocessing=subject.preprocessing, calibration=subject.train)

    def aware(self, network: keras.Model, preserve: Any = "none") -> bytes:
        return quantize_aware_train(
            network,
            preserve=preserve,
            validation=self.subject.validation,
            retraining=self.subject.careful,
            **self.data,
        )

    def pruned(self, pruning: Pruning) -> keras.Model:
        return self._once(
            str(pruning), lambda: prune(self.subject.model, pruning, retraining=self.subject.bold, **self.data)
        )

    def clustered(self, network: keras.Model | None = None) -> keras.Model:
        clustering = Clustering(16, preserve_sparsity=network is not None)
        return self._once(
            str(clustering),
            lambda: cluster(network or self.subject.model, clustering, retraining=self.subject.careful, **self.data),
        )

    def _once(self, key: str, make: Callable[[], keras.Model]) -> keras.Model:
        if key not in self._networks:
            self._networks[key] = make()
        return self._networks[key]


SPARSE = Pruning(0.8)
METHODS: dict[str, Callable[[Methods], bytes]] = {
    "dynamic": lambda m: m.post("dynamic"),
    "float16": lambda m: m.post("float16"),
    "int8": lambda m: m.post("int8"),
    "int16x8": lambda m: m.post("int16x8"),
    "qat": lambda m: m.aware(m.subject.model),
    "prune 80 %": lambda m: to_litert(m.pruned(SPARSE)),
    "prune 2:4": lambda m: to_litert(m.pruned(Pruning(0.5, pattern="2:4"))),
    "prune blocks": lambda m: to_litert(m.pruned(Pruning(0.5, pattern="block"))),
    "cluster 16": lambda m: to_litert(m.clustered()),
    "prune, cluster": lambda m: to_litert(m.clustered(m.pruned(SPARSE))),
    "prune, qat": lambda m: m.aware(m.pruned(SPARSE), "sparsity"),
    "cluster, qat": lambda m: m.aware(m.clustered(), "clusters"),
    "prune, cluster, qat": lambda m: m.aware(m.clustered(m.pruned(SPARSE)), "both"),
}


def compressed(subject: Subject, methods: list[str]) -> tuple[dict[str, bytes], dict[str, float]]:
    """LiteRT files by method, and the seconds each took beyond what an earlier one had made."""
    maker = Methods(subject)
    files, seconds = {}, {}
    for name in methods:
        start = time.perf_counter()
        files[name] = METHODS[name](maker)
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name}: {seconds[name]} s", flush=True)
    return files, seconds


def image_files(folder: Path) -> Subset:
    """Pictures by class folder, unchecked."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    found = [(str(path), label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    return Subset(tuple(path for path, _ in found), tuple(label for _, label in found))


def every(subset: Subset, count: int, *, start: int = 0) -> Subset:
    """``count`` pictures, evenly, from ``start`` on."""
    step = len(subset) // count
    return Subset(subset.paths[start::step][:count], subset.labels[start::step][:count])


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The figures that are the same on any machine, however busy."""
    timed = {"latency", "speedup", "verdict"}
    rows = [{key: value for key, value in row.items() if key not in timed} for row in report["rows"]]
    return {key: value for key, value in report.items() if key not in ("seconds", "threads")} | {"rows": rows}


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
