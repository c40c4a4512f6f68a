"""The same networks under JAX, on a machine that has no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit

ROOT = Path(toolkit.__file__).parents[1]

WITHOUT_TENSORFLOW = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, NoTensorFlow())
"""

# Run in a fresh interpreter: the backend is chosen once, when Keras is first imported.
SCRIPT = """
import pathlib, tempfile
import keras, numpy as np
import toolkit

assert keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
for name in sys.argv[1:]:
    info = toolkit.model_info(name)
    height, width, channels = info.input_shape
    side = max(32, info.min_size)
    model = toolkit.create_model(name, input_shape=(min(height, side), min(width, side), channels))
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Compiling a deep graph takes longer than stepping through it, whose operations depths have in common.
        jit_compile=len(model.layers) < 40,
    )
    before = [np.array(variable) for variable in model.trainable_variables]
    x = rng.normal(size=(4, *model.input_shape[1:])).astype("float32")
    # One step is enough, but where stochastic depth drops a block.
    for _ in range(12 if any(hasattr(layer, "survival") for layer in model.layers) else 1):
        assert np.isfinite(model.train_on_batch(x, np.arange(4) % info.num_classes)), name
        moved = [not np.array_equal(a, np.array(b)) for a, b in zip(before, model.trainable_variables)]
        if all(moved):
            break
    assert all(moved), name

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.weights.h5"
        model.save_weights(path)
        again = toolkit.create_model(name, input_shape=model.input_shape[1:], weights=path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights())), name
    print("trained", name)

assert "tensorflow" not in sys.modules
"""


# The program for a GPU, in small.
GPU = """
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
assert "tensorflow" not in sys.modules
"""

# A run from the command line, where TensorFlow is not even known by name.
RUN = """
import importlib.metadata

known = importlib.metadata.version

def version(name):
    if name == "tensorflow":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.metadata.version = version
from toolkit.cli import main

place = sys.argv[0]
assert main(["samples", "digits", f"{place}/digits"]) == 0
settings = ("--set", "run.epochs=1", "--set", "data.augment=none")
assert main(["train", f"{place}/digits", "--model", "lenet5", *settings, "--out", f"{place}/run"]) == 0
assert "tensorflow" not in sys.modules
"""


def run(script: str, *words: str) -> str:
    """Run a script without TensorFlow; what it printed."""
    pytest.importorskip("jax")
    places = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": places}
    command = [sys.executable, "-c", f"{WITHOUT_TENSORFLOW}sys.argv = sys.argv[1:]\n{script}", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(names: list[str]) -> None:
    lines = run(SCRIPT, "", *names).splitlines()
    assert [line.split()[1] for line in lines] == names


def test_network_trains_without_tensorflow():
    """The one that compiles in seconds; `-m slow` has all."""
    train(["lenet5"])


@pytest.mark.slow
@pytest.mark.parametrize("deep", [True, False])
def test_every_network_trains_without_tensorflow(deep):
    train([name for name in toolkit.list_models() if name.startswith(("resnet", "plain")) == deep])


@pytest.mark.slow
def test_a_run_ends_where_tensorflow_is_not_installed(tmp_path):
    run(RUN, str(tmp_path))
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["backend"] == "jax"
    assert "jax" in environment
    assert "tensorflow" not in environment
    assert json.loads((tmp_path / "run" / "result.json").read_text())["top1"] > 0.5


@pytest.mark.slow
def test_program_for_a_gpu_runs_in_small(tmp_path):
    pytest.importorskip("sklearn")
    out = tmp_path / "gpu.json"
    small = ("--networks", "lenet5", "highway_mlp", "--batch", "4", "--steps", "2", "--rounds", "1")
    run(GPU, str(ROOT / "benchmarks" / "gpu.py"), *small, "--photographs", "24", "--out", str(out))
    report = json.loads(out.read_text())
    assert [row["network"] for row in report["steps"] if row["is_finite"]] == ["lenet5", "highway_mlp"]
    found = report["features"]
    assert found["photographs"] == 16
    smaller = min(found["decoding_per_s"], found["computing_per_s"])
    assert found["of_smaller"] == pytest.approx(found["features_per_s"] / smaller, abs=0.01)
