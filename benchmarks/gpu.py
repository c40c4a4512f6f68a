"""Training steps of every network, ResNet-50 beside PyTorch's, and features of JPEG files, on a GPU with JAX.

    KERAS_BACKEND=jax python benchmarks/gpu.py --torch --out benchmarks/results/gpu.json

TensorFlow is not needed. Without a GPU the program runs, too, and says so; take it small then: ``--networks lenet5
--batch 4 --photographs 32``.

- *steps*: one network after the other in ``mixed_bfloat16``, compiled as `toolkit train` does it, on random pictures of
  its own size: the loss, the pictures a second after the first steps, and the most memory that JAX had taken by then.
- *peers* (``--torch``): ResNet-50 here and in torchvision and timm, channels last, autocast and compiled, with the same
  pictures and the same SGD; by the clock, in turn, medians over rounds.
- *features*: JPEG files of 500 pixels through ResNet-50's frozen part into an empty cache, beside the rates at which
  they are decoded and at which the network computes, each alone. "of_smaller" is its share of the smaller of the two.
"""

import argparse
import gc
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from command import given, write_record
from extract import clock, files
from finetune import write_photos

from toolkit import create_model, list_models
from toolkit.data.pixels.decode import decode_pixels
from toolkit.engines.extract import on_gpu, open_extractor
from toolkit.factory import preprocessing_of
from toolkit.machine import num_threads, processor
from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model
from toolkit.transfer.features import Extraction, FeatureExtractor
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
    parser.add_argument("--torch", action="store_true", help="ResNet-50 in torchvision and timm as well")
    parser.add_argument("--photographs", type=int, default=10_000)
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

    for name in arguments.networks:
        report["steps"].append(stepped(name, arguments))
        print(report["steps"][-1], flush=True)
        write()
    if arguments.torch:
        report["peers"] = peers(arguments)
        print(report["peers"], flush=True)
        write()
    report["features"] = features(arguments)
    print(report["features"], flush=True)
    write()


def device() -> str:
    if not on_gpu():
        return f"{processor()}, no GPU"
    jax = importlib.import_module("jax")
    return str(jax.devices()[0].device_kind)


def stepped(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    steps, losses = training(name, arguments.batch)
    row: dict[str, Any] = {"network": name}
    try:
        first = clock(lambda: steps(_WARM))
        seconds = statistics.median(clock(lambda: steps(arguments.steps)) for _ in range(arguments.rounds))
    except Exception as error:  # the others are measured all the same
        return row | {"error": str(error).splitlines()[0][:200]}
    row |= {"loss": round(losses[-1], 4), "is_finite": bool(np.isfinite(losses).all())}
    row |= {"first_steps_s": round(first, 1), "images_per_s": round(arguments.batch * arguments.steps / seconds, 1)}
    return row | {"peak_bytes": peak_bytes()}


def training(name: str, batch: int) -> tuple[Callable[[int], None], list[float]]:
    """Build a network as `toolkit train` does: a function that makes so many steps, and the losses it adds to."""
    gc.collect()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(_POLICY)
    try:
        model = create_model(name)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = OptimizerConfig(name="sgd", lr=_RATE, l2=_DECAY, schedule="constant")
    compile_model(model, TrainConfig(optimizer=optimizer, run=RunConfig()), steps_per_epoch=100)
    pictures, labels = random_batch(batch, model.input_shape[1:], model.output_shape)
    losses: list[float] = []

    def steps(count: int) -> None:
        for _ in range(count):
            losses.append(float(model.train_on_batch(pictures, labels, return_dict=True)["loss"]))

    return steps, losses


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
    sides = {"toolkit": training("resnet50", arguments.batch)[0]}
    for package in ("torchvision", "timm"):
        sides[package] = of_torch(package, arguments.batch)
    for steps in sides.values():
        steps(_WARM)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side in list(sides) if number % 2 else reversed(sides):
            seconds[side].append(clock(lambda steps=sides[side]: steps(arguments.steps)))
    pictures = arguments.batch * arguments.steps
    return {side: round(pictures / statistics.median(own), 1) for side, own in seconds.items()}


def of_torch(package: str, batch: int) -> Callable[[int], None]:
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

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast(where, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(compiled(x), y)
            loss.backward()
            optimizer.step()
            loss.item()  # as the other side, which notes it

    return steps


def features(arguments: argparse.Namespace) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    model = create_model("resnet50")
    preprocessing, batch_size = preprocessing_of(model), Extraction().batch_size
    with tempfile.TemporaryDirectory() as scratch:
        write_photos(None, Path(scratch) / "photos", arguments.photographs, 0)
        paths = files(Path(scratch) / "photos")
        with FeatureExtractor(model, preprocessing, cache_dir=Path(scratch) / "cache") as extractor:
            extractor.extract(paths[:batch_size])
            rest = paths[batch_size:]
            rates = {"features": len(rest) / clock(lambda: extractor.extract(rest))}
        with ThreadPoolExecutor(num_threads()) as pool:
            start = time.perf_counter()
            pixels = list(pool.map(lambda path: decode_pixels(path, preprocessing), rest))
            rates["decoding"] = len(rest) / (time.perf_counter() - start)
            engine = open_extractor(frozen_part(model, cut_tensor(model, None)), preprocessing, np.stack(pixels[:4]))
            batches = [np.stack(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
            engine.answers(batches[0])
            rates["computing"] = len(rest) / clock(lambda: list(pool.map(engine.answers, batches)))
    share = rates["features"] / min(rates["decoding"], rates["computing"])
    found = {f"{name}_per_s": round(rate, 1) for name, rate in rates.items()}
    return {"engine": str(engine), "photographs": len(rest), **found, "of_smaller": round(share, 2)}


if __name__ == "__main__":
    main()
