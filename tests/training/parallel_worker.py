"""Run by test_devices.py in processes of its own, because devices are chosen once: trains, and writes the weights.

python parallel_worker.py PICTURES RUN WEIGHTS.npz [COORDINATOR NUM_HOSTS HOST_ID]
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from toolkit.data import scan_folder, split_folder
from toolkit.spec import Preprocessing
from toolkit.training.config import DataConfig, OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.devices import all_devices
from toolkit.training.hosts import Hosts, connect, disconnect
from toolkit.training.loop import train
from toolkit.training.run_dir import RunDirectory

CONFIG = TrainConfig(
    data=DataConfig(augment="shift_flip", class_weights=True),
    optimizer=OptimizerConfig(name="sgd", lr=0.05, l2=1e-3, ema_epochs=1),
    run=RunConfig(epochs=2, batch_size=8),
)


def environment(backend: str, **extra: str) -> dict[str, str]:
    return {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", **extra}


def start(pictures: Path, directory: Path, name: str, *hosts: str, run: str = "", **env: str) -> subprocess.Popen:
    paths = [str(path) for path in (__file__, pictures, directory / "runs" / (run or name), directory / name)]
    command = [sys.executable, *paths, *hosts]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(process: subprocess.Popen, directory: Path, name: str) -> dict[str, np.ndarray]:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return dict(np.load(directory / f"{name}.npz"))


def require_close(found: dict, expected: dict) -> None:
    for name in expected.keys() - {"devices"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-5, err_msg=name)


def network() -> keras.Model:
    """Batch normalisation, whose statistics are of the whole batch, and dropout."""
    layers = keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="stage1_conv")(inputs)
    x = layers.ReLU(name="stage1_relu")(layers.BatchNormalization(momentum=0.5, name="stage1_bn")(x))
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(inputs, layers.Dense(2, dtype="float32", name="head_logits")(x))


def main(pictures: str, run: str, weights: str, *hosts: str) -> None:
    if keras.backend.backend() == "tensorflow" and "TWO_DEVICES" in os.environ:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    if hosts:
        connect(Hosts(hosts[0], int(hosts[1]), int(hosts[2])))
    split = split_folder(scan_folder(pictures))
    directory = RunDirectory(run, writer=not hosts or hosts[2] == "0")
    directory.begin({"config.json": "{}"}, resume=False)
    keras.utils.set_random_seed(0)
    with all_devices() as shard:
        model = train(network(), split, Preprocessing((8, 8)), CONFIG, directory, shard=shard)
        arrays = [np.asarray(variable) for variable in model.weights]
        if hosts:
            disconnect()
    metrics = [row["val_loss"] for row in directory.history()]
    np.savez(Path(weights), *arrays, devices=shard.num_devices, metrics=metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])
