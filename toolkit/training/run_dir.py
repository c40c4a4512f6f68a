"""A run's directory: its settings, its metrics, and the state it can go on from after a kill.

``config.json`` · ``model.json`` · ``labels.txt`` · ``splits.json`` · ``environment.json`` · ``metrics.jsonl`` and
``gradient_norms.jsonl``, a line an epoch · ``checkpoints/`` · ``model.keras``, which marks training as finished ·
``result.json``, ``predictions.npz``, pictures and ``report.html``.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.files import new_folder, replacing, write_file
from toolkit.lazy import keras

METRICS = "metrics.jsonl"
GRADIENT_NORMS = "gradient_norms.jsonl"

_KEEP_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.weights\.h5")


@dataclass(frozen=True, order=True)
class Position:
    """A point in a run: finished epochs, and finished steps of the next."""

    epoch: int = 0
    step: int = 0


class RunDirectory:
    """Reads and writes a run's files; every write is atomic. Of several hosts' processes only one is the ``writer``."""

    def __init__(self, path: str | Path, *, writer: bool = True) -> None:
        self.path = Path(path)
        self.model_file = self.path / "model.keras"
        self.writer = writer

    def begin(self, files: dict[str, str], *, resume: bool) -> None:
        """Start a run that the texts in ``files`` define, by file name, or go on with one of the same settings.

        Raises:
            UserError: a run exists and ``resume`` is false; or it has other settings.
        """
        if not self.writer:
            return
        if (self.path / "config.json").exists():
            if not resume:
                raise UserError(f"{self.path}: holds a run already; pass --resume to go on with it, or another --out")
            self._require_same(files)
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path}: exists and is not a run; name a new folder")
        # A kill leaves no directory that is neither a run nor free for one.
        with new_folder(self.path) as staging:
            for name, text in files.items():
                (staging / name).write_text(text, encoding="utf-8")

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is found whole or not at all."""
        if self.writer:
            write_file(self.path / name, text)

    def append_row(self, name: str, row: dict[str, Any]) -> None:
        """Add a line to ``METRICS`` or ``GRADIENT_NORMS``; a checkpoint of the row's ``epoch`` has to follow."""
        if self.writer:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read the whole lines of such a file."""
        path = self.path / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def history(self) -> list[dict[str, Any]]:
        """Read the metrics of every finished epoch."""
        return self.rows(METRICS)

    def save(
        self,
        model: "keras.Model",
        position: Position,
        *,
        segments: list[dict[str, float]] | None = None,
        best_epoch: int | None = None,
    ) -> None:
        """Keep weights, the optimizer's state and that of random layers; drop checkpoints nobody needs any more.

        Within an epoch, ``segments`` are the metrics of its parts so far. The checkpoint of ``best_epoch`` stays.
        """
        if not self.writer:
            return
        target = self._checkpoint(position)
        target.parent.mkdir(exist_ok=True)
        with replacing(target) as partial:
            with _undistributed():
                model.save_weights(partial)
            states = [keras.ops.convert_to_numpy(variable).tolist() for variable in _random_states(model)]
            self._beside(position).write_text(json.dumps({"segments": segments or [], "random": states}))
        positions = self.positions()
        for old in positions[:-_KEEP_CHECKPOINTS]:
            if old != Position(best_epoch or -1):
                self._checkpoint(old).unlink()
                self._beside(old).unlink()

    def positions(self) -> list[Position]:
        """List the positions of all checkpoints, the latest last."""
        names = [_CHECKPOINT.fullmatch(path.name) for path in (self.path / "checkpoints").glob("epoch-*")]
        return sorted(Position(int(name[1]), int(name[2] or 0)) for name in names if name)

    def restore(self, model: "keras.Model") -> tuple[Position, list[dict[str, float]]]:
        """Load the latest checkpoint and forget what was noted after it.

        Returns:
            How far it is, and the metrics of the parts of the epoch it is in.
        """
        positions = self.positions()
        position = positions[-1] if positions else Position()
        for name in (METRICS, GRADIENT_NORMS):
            self._forget_after(name, position.epoch)
        if not positions:
            return position, []
        return position, self.load(model, position)

    def load(self, model: "keras.Model", position: Position) -> list[dict[str, float]]:
        """Load one checkpoint into a compiled model with its optimizer built, and return its segments."""
        with _undistributed():
            model.load_weights(self._checkpoint(position))
        beside = json.loads(self._beside(position).read_text())
        for variable, state in zip(_random_states(model), beside["random"], strict=True):
            variable.assign(np.asarray(state, variable.dtype))
        return beside["segments"]

    def finish(self, model: "keras.Model") -> None:
        """Save the trained network; the checkpoints have served their purpose."""
        if not self.writer:
            return
        with replacing(self.model_file) as partial, _undistributed():
            model.save(partial)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _checkpoint(self, position: Position) -> Path:
        step = f"-step-{position.step:06d}" if position.step else ""
        return self.path / "checkpoints" / f"epoch-{position.epoch:04d}{step}.weights.h5"

    def _beside(self, position: Position) -> Path:
        return self._checkpoint(position).with_suffix("").with_suffix(".json")

    def _forget_after(self, name: str, epoch: int) -> None:
        # A kill between noting an epoch and keeping its checkpoint leaves a line too many, perhaps half of one.
        if (self.path / name).exists():
            rows = [row for row in self.rows(name) if row["epoch"] <= epoch]
            self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def _require_same(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            if name == "environment.json" or (path.exists() and path.read_text(encoding="utf-8") == text):
                continue
            what = _first_difference(path, text) if name == "config.json" and path.exists() else ""
            raise UserError(
                f"{path}: differs from what this command would use{what}, so the run cannot go on as it began; "
                "repeat the command it was begun with, or name another --out"
            )


@contextmanager
def _undistributed() -> Iterator[None]:
    # Keras creates variables while it saves and loads. Distributed ones are created by all hosts together, and only one
    # of them saves.
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _random_states(model: "keras.Model") -> "list[keras.Variable]":
    """Find the variables that decide the next draws of dropout and the like, which Keras does not save with weights."""
    saved = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in saved]


def _first_difference(path: Path, text: str) -> str:
    begun, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
    for group, settings in now.items():
        for key, value in settings.items():
            before = begun.get(group, {}).get(key)
            if before != value:
                return f" ({group}.{key} was {json.dumps(before)} and would be {json.dumps(value)})"
    return ""
