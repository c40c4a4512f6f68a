"""Training steps of every network, ResNet-50 beside PyTorch's, and features of JPEG files, on a GPU with JAX.

    KERAS_BACKEND=jax python benchmarks/gpu.py --torch --out benchmarks/results/gpu.json

TensorFlow is not needed. Without a GPU the program runs, too, and says so; take it small then: ``--networks lenet5
--batch 4 --photographs 32``.

- *steps*, which come last and take longest: one network after the other in ``mixed_bfloat16``, compiled as `toolkit
  train` does it, on random pictures of its own size that are on the device: the loss, the pictures a second after the
  first steps, and the most memory taken by then. Each has a process of its own; ``--at-once`` are built and compiled
  beside each other, and timed one after the other. With ``JAX_COMPILATION_CACHE_DIR`` a second run finds them compiled.
- *peers* (``--torch``): ResNet-50 here and in torchvision and timm, channels last, autocast and compiled, with the same
  pictures and the same SGD; by the clock, in turn, medians over rounds.
- *features*: JPEG files of 500 pixels through ResNet-50's frozen part into an empty cache, beside the rates at which
  they are decoded and at which the network computes, each alone. "of_smaller" is its share of the smaller of the two.
"""

import argparse
import importlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Any

# Of several processes none may take all of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np
from command import given, write_record
from extract import clock, files
from finetune import write_photos

from toolkit import create_model, list_models
from toolkit.cli.arguments import positive
from toolkit.data.pixels.decode import decode_pixels
from toolkit.engines.extract import default_batch_size, on_gpu, open_extractor
from toolkit.factory import preprocessing_of
from toolkit.machine import num_threads, processor
from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model
from toolkit.transfer.features import FeatureExtractor
from toolkit.transfer.freeze import cut_tensor, frozen_part

_POLICY = "mixed_bfloat16"
_RATE, _DECAY = 0.01, 1e-4
_WARM = 3  # steps before the clock starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(list_models()), help="by default all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=positive, default=1, help="networks built and compiled beside each other")
    parser.add_argument("--torch", action="store_true", help="ResNet-50 in torchvision and timm as well")
    parser.add_argument("--torch-batch", type=int, default=128, help="of all three")
    parser.add_argument("--photographs", type=int, default=10_000, help="0: no features")
    parser.add_argument("--photos", type=Path, help="where they are, or are made and kept")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    packages = ("keras", keras.backend.backend(), *(("torch", "torchvision", "timm") if arguments.torch else ()))
    report: dict[str, Any] = {
        **given(),
        "device": device(),
        "processor": processor(),
        "cores": num_threads(),
        "versions": {package: version(package) for package in packages},
        "policy": _POLICY,
        "batch": arguments.batch,
        "steps": [],
    }

    def write() -> None:  # after each part, for a machine that is lent by the minute
        write_record(report, arguments.out)

    if arguments.torch:
        report["peers"] = peers(arguments)
        print(report["peers"], flush=True)
        write()
    if arguments.photographs:
        report["features"] = features(arguments)
        print(report["features"], flush=True)
        write()
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    workers = ProcessPoolExecutor(arguments.at_once, context, take, (lock,), max_tasks_per_child=1)
    with workers:
        steps = [workers.submit(stepped, name, arguments) for name in arguments.networks]
        for done in as_completed(steps):
            report["steps"] += [done.result()]
            report["steps"].sort(key=lambda row: arguments.networks.index(row["network"]))
            print(done.result(), flush=True)
            write()


def take(lock: Lock) -> None:
    """Note, in a process, the lock of those that time."""
    global timing
    timing = lock


def device() -> str:
    if not on_gpu():
        return f"{processor()}, no GPU"
    jax = importlib.import_module("jax")
    return str(jax.devices()[0].device_kind)


def stepped(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {"network": name}
    losses: list[float] = []
    try:
        steps = training(name, arguments.batch)
        first = clock(lambda: steps(_WARM))
        with timing:
            seconds = [clock(lambda: losses.append(steps(arguments.steps))) for _ in range(arguments.rounds)]
    except Exception as error:  # the others are measured all the same
        return row | {"error": str(error).splitlines()[0][:200]}
    is_finite = bool(np.isfinite(losses).all())
    row |= {"loss": round(losses[-1], 4) if is_finite else None, "is_finite": is_finite}
    row |= {
        "first_steps_s": round(first, 1),
        "images_per_s": round(arguments.batch * arguments.steps / statistics.median(seconds), 1),
    }
    return row | {"peak_bytes": peak_bytes()}


def training(name: str, batch: int) -> Callable[[int], float]:
    """Build a network as `toolkit train` does: a function that makes so many steps and gives their mean loss."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(_POLICY)
    try:
        model = create_model(name)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = OptimizerConfig(name="sgd", lr=_RATE, l2=_DECAY, schedule="constant")
    compile_model(model, TrainConfig(optimizer=optimizer, run=RunConfig()), steps_per_epoch=100)
    own = on_device(*random_batch(batch, model.input_shape[1:], model.output_shape))
    batches = (own for _ in itertools.count())  # Keras knows generators, not all iterators

    def steps(count: int) -> float:
        history = model.fit(batches, steps_per_epoch=count, verbose=0, shuffle=False)
        return float(history.history["loss"][0])

    return steps


def on_device(pictures: np.ndarray, labels: Any) -> tuple[Any, Any]:
    return keras.ops.convert_to_tensor(pictures), keras.tree.map_structure(keras.ops.convert_to_tensor, labels)


def random_batch(batch: int, shape: tuple[int, ...], outputs: Any) -> tuple[np.ndarray, Any]:
    rng = np.random.default_rng(0)
    shapes = outputs if isinstance(outputs, dict) else {"": outputs}
    labels = {name: rng.integers(0, own[-1], batch).astype("int32") for name, own in shapes.items()}
    return rng.normal(size=(batch, *shape)).astype("float32"), labels if isinstance(outputs, dict) else labels[""]


def peak_bytes() -> int | None:
    if not on_gpu():
        return None
    statistics_of = importlib.import_module("jax").devices()[0].memory_stats() or {}
    return statistics_of.get("peak_bytes_in_use")


def peers(arguments: argparse.Namespace) -> dict[str, Any]:
    sides = {"toolkit": training("resnet50", arguments.torch_batch)}
    for package in ("torchvision", "timm"):
        sides[package] = of_torch(package, arguments.torch_batch)
    for steps in sides.values():
        steps(_WARM)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side in list(sides) if number % 2 else reversed(sides):
            seconds[side].append(clock(lambda steps=sides[side]: steps(arguments.steps)))
    pictures = arguments.torch_batch * arguments.steps
    rates = {side: round(pictures / statistics.median(own), 1) for side, own in seconds.items()}
    return {"batch": arguments.torch_batch, **rates}


def of_torch(package: str, batch: int) -> Callable[[int], float]:
    """ResNet-50's step in PyTorch: channels last, autocast, compiled."""
    import torch

    own = importlib.import_module(package)
    built = own.create_model("resnet50") if package == "timm" else own.models.resnet50()
    where = "cuda" if torch.cuda.is_available() else "cpu"
    network = built.to(where, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), _RATE, momentum=0.9, weight_decay=_DECAY)
    pictures, labels = random_batch(batch, (224, 224, 3), (None, 1000))
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(where, memory_format=torch.channels_last)
    y = torch.from_numpy(labels).long().to(where)
    compiled = torch.compile(network) if where == "cuda" else network

    def steps(count: int) -> float:
        total = torch.zeros((), device=where)
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast(where, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(compiled(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / count

    return steps


def features(arguments: argparse.Namespace) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    model = create_model("resnet50")
    preprocessing, batch_size = preprocessing_of(model), default_batch_size()
    with tempfile.TemporaryDirectory() as scratch:
        photos = arguments.photos or Path(scratch) / "photos"
        if not photos.exists():
            write_photos(None, photos, arguments.photographs, 0)
        paths = files(photos)
        with FeatureExtractor(model, preprocessing, cache_dir=Path(scratch) / "cache") as extractor:
            extractor.extract(paths[:batch_size])
            rest = paths[batch_size:]
            rates = {"features": len(rest) / clock(lambda: extractor.extract(rest))}
        with ThreadPoolExecutor(num_threads()) as pool:
            start = time.perf_counter()
            pixels = list(pool.map(lambda path: decode_pixels(path, preprocessing), rest))
            rates["decoding"] = len(rest) / (time.perf_counter() - start)
            frozen, trial = frozen_part(model, cut_tensor(model, None)), np.stack(pixels[:4])
            engine = open_extractor(frozen, preprocessing, trial, batch_size=batch_size)
            batches = [np.stack(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
            engine.answers(batches[0])
            rates["computing"] = len(rest) / clock(lambda: list(pool.map(engine.answers, batches)))
    share = rates["features"] / min(rates["decoding"], rates["computing"])
    found = {f"{name}_per_s": round(rate, 1) for name, rate in rates.items()}
    return {"engine": str(engine), "photographs": len(rest), **found, "of_smaller": round(share, 2)}


if __name__ == "__main__":
    main()
