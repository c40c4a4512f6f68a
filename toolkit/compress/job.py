"""Jobs for the process that TensorFlow Model Optimization runs in: the parent's side of ``toolkit.compress.worker``."""

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.compress.bridge import INSTALL, save_twin, to_tf_keras
from toolkit.compress.examples import Examples, write_examples
from toolkit.data import augment
from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.lazy import keras
from toolkit.progress import Step, step
from toolkit.spec import Preprocessing

log = logging.getLogger("toolkit")


@dataclass(frozen=True)
class Retraining:
    """Settings of the training that goes on while a network is being compressed.

    Attributes:
        epochs: passes over the training pictures.
        learning_rate: Adam's, falling to a hundredth of it along a cosine.
        batch_size: pictures a step.
        augment: as in training, see ``toolkit.data.augment.parse``; not those that mix pictures, and none for inputs
            that are normalised already.
        seed: of order and augmentation.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    augment: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise UserError(
                "epochs must be at least 0, batch_size at least 1 and learning_rate positive, got "
                f"epochs={self.epochs}, batch_size={self.batch_size}, learning_rate={self.learning_rate}"
            )
        if augment.mixing_of(augment.parse(self.augment)):
            raise UserError(f"mixup and cutmix are for training from scratch, got augment={self.augment!r}")


def require_optimization() -> None:
    """Refuse to begin where TensorFlow Model Optimization is not installed, or the Keras that it is for.

    Raises:
        UserError: see there.
    """
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise UserError(f"this needs TensorFlow Model Optimization, which is not installed: {INSTALL}")
    if importlib.util.find_spec("tf_keras") is None:
        raise UserError(f"this needs tf_keras, which is not installed: {INSTALL}")


@contextmanager
def finished_job(
    method: str,
    model: "keras.Model",
    options: dict[str, Any],
    preprocessing: Preprocessing,
    train: Examples,
    validation: Examples | None,
    retraining: Retraining,
) -> Iterator[Path]:
    """Run a job to its end and give the directory with its results, which is gone after the ``with``.

    Each epoch is a step that counts batches, and its figures are a line of the log.

    Raises:
        UserError: TensorFlow Model Optimization is not installed, or the worker said what is wrong with its input.
        RuntimeError: the worker failed otherwise.
    """
    require_optimization()
    with scratch_folder("toolkit-compress-") as directory:
        job = {
            "method": method,
            "options": options,
            "settings": asdict(retraining),
            "preprocessing": preprocessing.as_dict(),
            "train": write_examples(train, preprocessing, directory, "train"),
            "validation": validation and write_examples(validation, preprocessing, directory, "validation"),
        }
        with step("rebuilding the network in tf_keras"):
            save_twin(to_tf_keras(model), directory / "model.h5")
        (directory / "job.json").write_text(json.dumps(job))
        _run(directory)
        yield directory


def _run(directory: Path) -> None:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The worker must find this very package, wherever it was imported from.
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "toolkit.compress.worker", str(directory)]
    error: dict[str, Any] = {}
    pipe = subprocess.PIPE  # the worker ends when its stdin closes, even if this process is killed before it can say so
    with (
        (directory / "worker.log").open("w") as log_file,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log_file, env=environment, text=True) as process,
        _Shown() as shown,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    error = event
                else:
                    shown.tell(event)
            status = process.wait()
        finally:
            process.kill()
    if error.get("users"):
        raise UserError(error["message"])
    if status:
        raise RuntimeError(f"the compression worker failed: {error.get('message') or _last_words(status, directory)}")


class _Shown:
    """Shows what the worker tells: ``stage`` begins a step, ``batch`` counts in it, ``epoch`` is a line."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._told: Step | None = None

    def __enter__(self) -> "_Shown":
        self.tell({"event": "stage", "stage": "starting TensorFlow Model Optimization"})
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tell(self, event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            self._open.close()
            self._told = self._open.enter_context(step(event["stage"], event.get("total")))
        elif event["event"] == "batch" and self._told is not None:
            self._told(event["done"])
        elif event["event"] == "epoch":
            figures = "  ".join(f"{key} {value:.4f}" for key, value in event.items() if isinstance(value, float))
            log.info("epoch %3d/%d  %s", event["epoch"], event["epochs"], figures)


def _last_words(status: int, directory: Path) -> str:
    if status == -signal.SIGKILL:
        return "it was killed, probably because memory ran out: lower the batch size"
    lines = [line.strip() for line in (directory / "worker.log").read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), f"exit status {status}")
