"""Training steps here and in plain Keras, in turn, on this machine's processor: pictures a second, and the ratios.

    python benchmarks/training.py --out benchmarks/results/training.json

One side compiles and fits the network as `toolkit train` does, the other as a Keras tutorial would: the same layers,
SGD with momentum and the same weight decay. A round times a few steps of each in every precision, the first of a fit
left out; ratios are taken within a round, because a shared machine's speed drifts, and are medians over the rounds of
processor time, which other programs disturb less than they do the clock. Pictures are random and stay the same, so
nothing is decoded. `--torch` adds PyTorch's step of the same network (channels last, autocast), where it is installed.
"""

import argparse
import gc
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from command import given, write_record

from toolkit import create_model
from toolkit.cli.output import print_table
from toolkit.machine import instruction_sets, num_threads, processor
from toolkit.network.fused import fused_batch_norm
from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model

#: Network, side of its pictures, pictures a step.
CASES = {"resnet20": (32, 128), "resnet50": (128, 16)}
POLICIES = ("float32", "mixed_bfloat16")
_DECAY = 1e-4
_RATE = 0.1

#: Seconds by the clock and of the processors, of a step.
Times = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a round, for each side and precision")
    parser.add_argument("--torch", action="store_true", help="PyTorch as well")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.torch and importlib.util.find_spec("torch") is None:
        parser.error("--torch needs PyTorch, which is not installed: pip install torch")
    rows = [row for name in arguments.models for row in measure(name, arguments)]
    columns = list(rows[0])
    print_table([[row[column] for column in columns] for row in rows], columns)
    packages = ("keras", "tensorflow", *(["torch"] if arguments.torch else []))
    report = {
        **given(),
        "machine": {"processor": processor(), "instruction_sets": instruction_sets()},
        "load_at_end": [round(value, 1) for value in os.getloadavg()],
        "versions": {package: version(package) for package in packages},
        "rows": rows,
    }
    write_record(report, arguments.out)


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    size, batch = CASES[name]
    sides: dict[tuple[str, str], Callable[[int], Times]] = {}
    for policy in arguments.policies:
        for side in ("keras", "toolkit"):
            sides[side, policy] = of_keras(name, policy, is_ours=side == "toolkit")
        if arguments.torch:
            sides["torch", policy] = of_torch(name, policy)
    times: dict[tuple[str, str], list[Times]] = {key: [] for key in sides}
    for run in sides.values():
        run(2)  # traced, first kernels
    for number in range(arguments.rounds):
        order = list(sides)
        for key in order if number % 2 else reversed(order):
            gc.collect()
            times[key].append(sides[key](arguments.steps))
    rows = []
    for (side, policy), own in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*own, strict=True))
        row = {"model": name, "pixels": size, "batch": batch, "policy": policy, "side": side}
        row |= {"step_ms": round(1e3 * wall, 1), "cpu_ms": round(1e3 * cpu, 1), "images_per_s": round(batch / wall, 1)}
        for label, reference in (("of_keras", ("keras", policy)), ("of_keras_float32", ("keras", "float32"))):
            found = [theirs[1] / ours[1] for theirs, ours in zip(times.get(reference, []), own, strict=False)]
            row[label] = round(statistics.median(found), 2) if found else None
        rows.append(row)
    return rows


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    size, batch = CASES[name]
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, size, size, 3)).astype("float32"), rng.integers(0, 10, batch).astype("int32")


def of_keras(name: str, policy: str, *, is_ours: bool) -> Callable[[int], Times]:
    """A function that fits for so many steps and gives the time of one."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = create_model(name, num_classes=10, input_shape=(CASES[name][0], CASES[name][0], 3))
    keras.config.set_dtype_policy("float32")
    if is_ours:
        optimizer = OptimizerConfig(name="sgd", lr=_RATE, l2=_DECAY, schedule="constant")
        compile_model(model, TrainConfig(optimizer=optimizer, run=RunConfig()), steps_per_epoch=100)
    else:
        for variable in model.trainable_variables:
            if len(variable.shape) >= 2:
                variable.regularizer = keras.regularizers.L2(_DECAY / 2)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(_RATE, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False)
    batches = tf.data.Dataset.from_tensors(data(name)).repeat()
    ends: list[Times] = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append((time.perf_counter(), time.process_time()))
    )

    def run(steps: int) -> Times:
        ends.clear()
        with fused_batch_norm(model) if is_ours else nullcontext():
            model.fit(batches, steps_per_epoch=steps + 1, shuffle=False, callbacks=[note], verbose=0)
        return of_a_step(ends)

    return run


def of_torch(name: str, policy: str) -> Callable[[int], Times]:
    """The same for PyTorch: channels last, autocast."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(num_threads())
    model = torch_network(name).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), _RATE, momentum=0.9, weight_decay=_DECAY)
    pictures, labels = data(name)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).long()

    def run(steps: int) -> Times:
        ends = []
        for _ in range(steps + 1):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=policy != "float32"):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            ends.append((time.perf_counter(), time.process_time()))
        return of_a_step(ends)

    return run


def torch_network(name: str) -> Any:
    """Build the networks of ``CASES`` in PyTorch: ResNet-20 with shortcuts without parameters, ResNet-50 v1.5."""
    import torch
    from torch import nn

    class PadChannels(nn.Module):
        def forward(self, x: Any) -> Any:
            quarter = x.shape[1] // 2  # of the doubled channels, half of the new ones on each side
            return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))

    class Residual(nn.Module):
        def __init__(self, branch: Any, shortcut: Any) -> None:
            super().__init__()
            self.branch, self.shortcut = branch, shortcut

        def forward(self, x: Any) -> Any:
            return torch.relu(self.branch(x) + self.shortcut(x))

    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))

    small = name == "resnet20"
    stages = [(16, 3), (32, 3), (64, 3)] if small else [(64, 3), (128, 4), (256, 6), (512, 3)]
    stem = [conv(3, 16, 3), nn.ReLU()] if small else [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs, blocks = stages[0][0], []
    for number, (width, depth) in enumerate(stages):
        for index in range(depth):
            stride = 2 if number and not index else 1
            if small:
                branch = [conv(inputs, width, 3, stride), nn.ReLU(), conv(width, width, 3)]
            else:
                branch = [conv(inputs, width, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU()]
                branch.append(conv(width, 4 * width, 1))
            outputs = width if small else 4 * width
            projection = PadChannels() if small else conv(inputs, outputs, 1, stride)
            blocks.append(Residual(nn.Sequential(*branch), nn.Identity() if inputs == outputs else projection))
            inputs = outputs
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def of_a_step(ends: list[Times]) -> Times:
    wall, cpu = (statistics.mean(np.diff(column)) for column in zip(*ends, strict=True))
    return float(wall), float(cpu)


if __name__ == "__main__":
    main()
