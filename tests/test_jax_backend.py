"""The same networks under JAX, on a machine that has no TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit

ROOT = Path(toolkit.__file__).parents[1]

# Run in a fresh interpreter: the backend is chosen once, when Keras is first imported.
SCRIPT = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, NoTensorFlow())

import pathlib, tempfile
import keras, numpy as np
import toolkit
from toolkit.arithmetic import count_params

assert keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
for name in toolkit.list_models():
    info = toolkit.model_info(name)
    height, width, channels = info.input_shape
    model = toolkit.create_model(name, input_shape=(min(height, 64), min(width, 64), channels))
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    before = [np.array(variable) for variable in model.trainable_variables]
    x = rng.normal(size=(4, *model.input_shape[1:])).astype("float32")
    assert np.isfinite(model.train_on_batch(x, np.arange(4))), name
    moved = [not np.array_equal(a, np.array(b)) for a, b in zip(before, model.trainable_variables)]
    assert all(moved), name

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.weights.h5"
        model.save_weights(path)
        again = toolkit.create_model(name, input_shape=model.input_shape[1:], weights=path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights())), name
    print("trained", name)

assert "tensorflow" not in sys.modules
"""


def test_every_network_trains_without_tensorflow():
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == toolkit.list_models()
