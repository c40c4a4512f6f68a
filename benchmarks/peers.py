"""The same network beside us in keras.applications, torchvision and timm: a batch answered, and a step of training.

    pip install 'toolkit[benchmarks]'
    python benchmarks/peers.py --out benchmarks/results/peers.json

Random weights and pictures, nothing decoded, nothing fetched. A round times every package once, in turn and then in
turn backwards; figures are medians over the rounds, of processor time, which other programs disturb less than they do
the clock. Torch computes channels last; `mixed_bfloat16` is its autocast. A package that does not import is named with
the reason: torchvision's wheels need the torch they were built with, so with a build of torch for processors only, take
torchvision from the same index.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from command import given, write_record

from toolkit.cli.output import print_table
from toolkit.machine import instruction_sets, num_threads, processor

#: Names of the same network in each package.
NETWORKS = {
    "resnet50": {"toolkit": "resnet50", "keras": "ResNet50", "torchvision": "resnet50", "timm": "resnet50"},
    "vgg16": {"toolkit": "vgg16", "keras": "VGG16", "torchvision": "vgg16", "timm": "vgg16"},
}
POLICIES = ("float32", "mixed_bfloat16")
_RATE, _CLASSES = 0.1, 1000

#: What answers a batch, and what trains a step.
Timed = tuple[Callable[[], object], Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["resnet50"])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    sides, missing = available()
    for name, reason in missing.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    rows = [
        row
        for network in arguments.networks
        for policy in arguments.policies
        for row in measure(network, policy, sides, arguments)
    ]
    print_table([list(row.values()) for row in rows], list(rows[0]))
    packages = ("toolkit", "keras", "tensorflow", "torch", *(side for side in sides if side in ("torchvision", "timm")))
    report = {
        **given(),
        "machine": {"processor": processor(), "instruction_sets": instruction_sets()},
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in packages if package != "torch" or "torch" in sys.modules},
        "missing": missing,
        "rows": rows,
    }
    write_record(report, arguments.out)


def available() -> tuple[list[str], dict[str, str]]:
    """The packages that import, and why the others do not."""
    missing = {}
    for package in ("torchvision", "timm"):
        try:
            importlib.import_module(package)
        except (ImportError, RuntimeError, OSError) as error:
            missing[package] = str(error).splitlines()[0]
    return [side for side in ("toolkit", "keras", "torchvision", "timm") if side not in missing], missing


def measure(network: str, policy: str, sides: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    pictures = np.random.default_rng(0).normal(size=(arguments.batch, arguments.size, arguments.size, 3))
    labels = np.arange(arguments.batch) % _CLASSES
    made: dict[str, Timed] = {}
    for side in sides:
        make = of_torch if side in ("torchvision", "timm") else of_keras
        made[side] = make(side, NETWORKS[network][side], policy, pictures.astype("float32"), labels)
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in made}
    for call in (call for pair in made.values() for call in pair):
        call()  # traced, first kernels
    for number in range(arguments.rounds):
        for side in list(made) if number % 2 else list(made)[::-1]:
            times[side].append((_milliseconds(made[side][0]), _milliseconds(made[side][1])))
    found = []
    for side, own in times.items():
        answer, step = (statistics.median(column) for column in zip(*own, strict=True))
        row = {"network": network, "side": side, "policy": policy, "pixels": arguments.size, "batch": arguments.batch}
        found.append(row | {"answer_ms": round(answer, 1), "step_ms": round(step, 1)})
    return found


def _milliseconds(call: Callable[[], object]) -> float:
    before = time.process_time()
    call()
    return 1000 * (time.process_time() - before)


def of_keras(side: str, name: str, policy: str, pictures: np.ndarray, labels: np.ndarray) -> Timed:
    """Ours is compiled and fitted as `toolkit train` does; Keras' as its tutorials do, answering logits."""
    import keras
    import tensorflow as tf

    from toolkit import create_model
    from toolkit.network.fused import fused_batch_norm
    from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
    from toolkit.training.loop import compile_model

    shape = pictures.shape[1:]
    keras.config.set_dtype_policy(policy)
    try:
        if side == "toolkit":
            model = create_model(name, input_shape=shape)
            optimizer = OptimizerConfig(name="sgd", lr=_RATE, schedule="constant")
            config = TrainConfig(optimizer=optimizer, run=RunConfig(epochs=1, batch_size=len(pictures)))
            compile_model(model, config, steps_per_epoch=1)
        else:
            model = getattr(keras.applications, name)(weights=None, input_shape=shape, classifier_activation=None)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(_RATE, momentum=0.9), loss, jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    answer = tf.function(lambda x: model(x, training=False))
    x = tf.constant(pictures)

    def step() -> object:
        if side != "toolkit":
            return model.train_on_batch(pictures, labels)
        with fused_batch_norm(model):
            return model.train_on_batch(pictures, labels)

    return lambda: answer(x), step


def of_torch(side: str, name: str, policy: str, pictures: np.ndarray, labels: np.ndarray) -> Timed:
    """torchvision's or timm's, channels last."""
    import torch

    torch.set_num_threads(num_threads())
    module = importlib.import_module("torchvision.models" if side == "torchvision" else side)
    make = getattr(module, name) if side == "torchvision" else lambda: module.create_model(name, pretrained=False)
    model = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), _RATE, momentum=0.9)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels).long()
    precision = torch.autocast("cpu", torch.bfloat16, enabled=policy != "float32")

    def answer() -> object:
        model.eval()
        with torch.inference_mode(), precision:
            return model(x)

    def step() -> object:
        model.train()
        optimizer.zero_grad()
        with precision:
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return answer, step


if __name__ == "__main__":
    main()
