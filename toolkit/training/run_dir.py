"""A run's directory: what it was told, what it measured, and the state it can go on from after a kill.

``config.json`` · ``labels.txt`` · ``splits.json`` · ``environment.json`` · ``metrics.jsonl``, a line an epoch ·
``curves.png`` · ``checkpoints/`` · ``model.keras``, which marks the run as finished.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from toolkit.spec import UserError

_KEEP_CHECKPOINTS = 2


class RunDirectory:
    """Reads and writes a run's files; every write is atomic."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.model_file = self.path / "model.keras"
        self.metrics_file = self.path / "metrics.jsonl"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").exists()

    def begin(self, files: dict[str, str], *, resume: bool) -> None:
        """Start a run, or go on with one that was told the same.

        Args:
            files: name → text of the files that define the run.
            resume: whether an existing run is meant to be continued.

        Raises:
            UserError: a run exists and ``resume`` is false; or it was told something else.
        """
        if self.exists():
            if not resume:
                raise UserError(f"{self.path}: holds a run already; pass --resume to go on with it, or another --out")
            self._require_same(files)
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"{self.path}: exists and is not a run; name a new folder")
        self.path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name != "config.json":
                self.write_text(name, text)
        self.write_text("config.json", files["config.json"])  # last: it marks the run as begun

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is found whole or not at all."""
        partial = self.path / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)

    def save_epoch(self, model: keras.Model, epoch: int, metrics: dict[str, float]) -> None:
        """Keep the state after ``epoch`` epochs, then note its metrics."""
        directory = self.path / "checkpoints"
        directory.mkdir(exist_ok=True)
        partial = directory / ".partial.weights.h5"
        model.save_weights(partial)
        self._append_metrics({"epoch": epoch} | metrics)
        os.replace(partial, directory / f"epoch-{epoch:04d}.weights.h5")
        for old in self._checkpoints()[:-_KEEP_CHECKPOINTS]:
            old.unlink()

    def restore(self, model: keras.Model) -> int:
        """Load the last checkpoint, optimizer state included, into a compiled model.

        Returns:
            The number of epochs it has behind it, 0 if there is none.
        """
        checkpoints = self._checkpoints()
        if not checkpoints:
            self._keep_metrics_until(0)
            return 0
        model.optimizer.build(model.trainable_variables)  # its state is only loaded into variables that exist
        model.load_weights(checkpoints[-1])
        epoch = int(checkpoints[-1].name.split("-")[1].split(".")[0])
        self._keep_metrics_until(epoch)
        return epoch

    def finish(self, model: keras.Model) -> None:
        """Save the trained network; the checkpoints have served their purpose."""
        partial = self.path / ".partial.keras"
        model.save(partial)
        os.replace(partial, self.model_file)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def history(self) -> list[dict[str, Any]]:
        """The metrics of every finished epoch."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def _append_metrics(self, row: dict[str, Any]) -> None:
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _keep_metrics_until(self, epoch: int) -> None:
        # A kill between the two writes of save_epoch leaves a line too many, perhaps half of one.
        if not self.metrics_file.exists():
            return
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)[:epoch]
        self.write_text(self.metrics_file.name, "".join(lines))

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("epoch-*.weights.h5"))

    def _require_same(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            if name != "environment.json" and (not path.exists() or path.read_text(encoding="utf-8") != text):
                raise UserError(
                    f"{path}: differs from what this command would use, so the run cannot go on as it began; "
                    "repeat the command it was begun with, or name another --out"
                )
