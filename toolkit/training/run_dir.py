"""A run's directory: its settings, its metrics, and the state it can go on from after a kill.

``command.json``, what it was begun with · ``config.json`` · ``model.json`` · ``labels.txt`` · ``splits.json`` ·
``environment.json`` · ``metrics.jsonl`` and ``gradient_norms.jsonl``, a line an epoch · ``checkpoints/``, of which a
finished run keeps the last, to train on from · ``model.keras``, which marks training as finished · ``result.json``,
tables, pictures and ``report.html``. A run that was given more epochs keeps its earlier network as
``model-epoch-0020.keras``.
"""

import fcntl
import fnmatch
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.factory import save_network
from toolkit.files import new_folder, remove_abandoned, remove_folder, replacing, write_file, writing
from toolkit.lazy import keras
from toolkit.training.config import TrainConfig, config_from_json

METRICS = "metrics.jsonl"
GRADIENT_NORMS = "gradient_norms.jsonl"

_KEEP_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.npz")
_SETTINGS, _COMMAND, _MODEL = "config.json", "command.json", "model.json"
# Settings under which the rest of a run is no other run: how long it lasts, and what is written beside it.
_MAY_CHANGE = (
    *("run.epochs", "run.checkpoint_every_steps", "run.gradient_norms", "run.tensorboard"),
    "data.cache_mib",
)
# All that a run writes.
_OWN = (
    "*.json",
    "*.jsonl",
    "labels.txt",
    "checkpoints",
    "tensorboard",
    "*.keras",
    "*.csv",
    "*.png",
    "report.html",
    "run.toml",
)


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
        self._held: int | None = None

    def hold(self) -> None:
        """Keep other processes out of the run, until ``close`` or the end of this one.

        Raises:
            UserError: another one is at it.
        """
        if self._held is not None or not self.writer:
            return
        self._held = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(f"{self.path}: another process is at it; wait, or name another --out") from None
        except OSError:  # a file system without locks
            pass

    def close(self) -> None:
        """Let other processes at the run."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @property
    def exists(self) -> bool:
        """True where a run was begun."""
        return (self.path / _SETTINGS).exists()

    def command(self) -> dict[str, Any]:
        """Read what the run was begun with, as ``begin`` was given it in ``command.json``.

        Raises:
            UserError: there is no run, or one of an earlier version, which did not note it.
        """
        if not self.exists:
            raise UserError(f"{self.path}: holds no run to go on with; begin one with DATA, --model and --out")
        try:
            return json.loads((self.path / _COMMAND).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: a run of an earlier version, which this one cannot go on with; name another --out, and "
                "--weights to start from what it learned"
            ) from None

    def config(self) -> TrainConfig:
        """Read the run's settings."""
        return config_from_json((self.path / _SETTINGS).read_bytes())

    def model_description(self) -> dict[str, Any]:
        """Read how the run's network is built, as ``begin`` was given it in ``model.json``."""
        return json.loads((self.path / _MODEL).read_text(encoding="utf-8"))

    def is_smoke(self) -> bool:
        """Tell if the run in the directory is a smoke run, which a real one may replace."""
        return (self.path / _COMMAND).exists() and bool(self.command().get("smoke"))

    def require_free(self) -> None:
        """Refuse a directory in which no run can be begun, before anything takes long.

        Raises:
            UserError: it holds a run that is no smoke run, or something else.
        """
        if self.exists and not self.is_smoke():
            raise UserError(f"{self.path}: holds a run already; pass --resume to go on with it, or another --out")
        if not self.path.exists() and not self.path.is_symlink():
            return
        if os.path.ismount(self.path):
            place = self.path / "run"
            raise UserError(f"{self.path}: a mounted volume, which no run can replace; name a folder in it, {place}")
        names = sorted(os.listdir(self.path)) if self.path.is_dir() else [""]
        if not self.exists and names:
            raise UserError(f"{self.path}: exists and is not a run; name a new folder")
        strange = [name for name in names if not any(fnmatch.fnmatch(name, own) for own in _OWN)]
        if strange:
            raise UserError(f"{self.path}: a smoke run with {strange[0]!r} beside it; move that, or name another --out")

    def begin(self, files: Mapping[str, str], *, resume: bool) -> None:
        """Start a run that the texts in ``files`` define, by file name, or go on with one of the same settings.

        A smoke run is replaced unless it is gone on with. How long a run lasts, and what is written beside it, may
        change when it goes on.

        Raises:
            UserError: a run exists and ``resume`` is false; or it has other settings, which are named.
        """
        if not self.writer:
            return
        if resume and self.exists:
            self._go_on(files)
            return
        self.require_free()
        if self.exists:
            remove_folder(self.path)
        # A kill leaves no directory that is neither a run nor free for one.
        with new_folder(self.path) as staging:
            for name, text in files.items():
                write_file(staging / name, text)

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is found whole or not at all."""
        if self.writer:
            write_file(self.path / name, text)

    def append_row(self, name: str, row: dict[str, Any]) -> None:
        """Add a line to ``METRICS`` or ``GRADIENT_NORMS``; a checkpoint of the row's ``epoch`` has to follow.

        Raises:
            UserError: it cannot be written. What is there of it is forgotten when the run goes on.
        """
        if not self.writer:
            return
        path = self.path / name
        with writing(path), path.open("a", encoding="utf-8") as file:
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
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in _state(model).items()}
        # No HDF5 file: where its library cannot write, on a full disk, it takes the process with it at the end.
        with replacing(target) as partial:
            target.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, segments=json.dumps(segments or []), **arrays)
        self._drop(self.positions()[:-_KEEP_CHECKPOINTS], best_epoch)

    def positions(self) -> list[Position]:
        """List the positions of all checkpoints, the latest last."""
        names = [_CHECKPOINT.fullmatch(path.name) for path in (self.path / "checkpoints").glob("epoch-*")]
        return sorted(Position(int(name[1]), int(name[2] or 0)) for name in names if name)

    def restore(self, model: "keras.Model") -> tuple[Position, list[dict[str, float]]]:
        """Load the latest checkpoint and forget what was noted after it.

        Returns:
            How far it is, and the metrics of the parts of the epoch it is in.
        """
        if self.writer:
            remove_abandoned(self.path / "checkpoints")
        positions = self.positions()
        position = positions[-1] if positions else Position()
        for name in (METRICS, GRADIENT_NORMS):
            self._forget_after(name, position.epoch)
        if not positions:
            return position, []
        return position, self.load(model, position)

    def load(self, model: "keras.Model", position: Position) -> list[dict[str, float]]:
        """Load one checkpoint into a compiled model with its optimizer built, and return its segments."""
        with np.load(self._checkpoint(position), allow_pickle=False) as arrays:
            for name, variable in _state(model).items():
                variable.assign(arrays[name])
            return json.loads(arrays["segments"].item())

    def finish(self, model: "keras.Model", *, best_epoch: int | None = None) -> None:
        """Save the trained network, which tells its preprocessing, and drop what is not needed to train on from.

        Of the checkpoints the last stays, and that of ``best_epoch``.
        """
        if not self.writer:
            return
        with _undistributed():
            save_network(model, self.model_file)
        self._drop(self.positions()[:-1], best_epoch)

    def _drop(self, positions: list[Position], best_epoch: int | None) -> None:
        for position in positions:
            if position != Position(best_epoch or -1):
                self._checkpoint(position).unlink()

    def _checkpoint(self, position: Position) -> Path:
        step = f"-step-{position.step:06d}" if position.step else ""
        return self.path / "checkpoints" / f"epoch-{position.epoch:04d}{step}.npz"

    def _forget_after(self, name: str, epoch: int) -> None:
        # A kill between noting an epoch and keeping its checkpoint leaves a line too many, perhaps half of one.
        if (self.path / name).exists():
            rows = [row for row in self.rows(name) if row["epoch"] <= epoch]
            self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def _go_on(self, files: Mapping[str, str]) -> None:
        """See that the run in the directory is the same, and note the settings that may change."""
        for name, what in (("labels.txt", "classes"), ("splits.json", "pictures"), (_MODEL, "network")):
            path = self.path / name
            if name in files and not (path.exists() and _text_of(path) == files[name]):
                raise UserError(
                    f"{self.path}: cannot go on as it began, the {what} are not those in its {name}; " + self._instead()
                )
        changed = differences(json.loads((self.path / _SETTINGS).read_bytes()), json.loads(files[_SETTINGS]))
        refused = [
            f"{key} was {json.dumps(before)} and would be {json.dumps(after)}"
            for key, (before, after) in changed.items()
            if key not in _MAY_CHANGE
        ]
        if refused:
            raise UserError(f"{self.path}: cannot go on as it began, {', '.join(refused)}; " + self._instead())
        if "run.epochs" in changed:
            self._change_length(*changed["run.epochs"])
        for name in (_COMMAND, _SETTINGS):
            if name in files and _text_of(self.path / name) != files[name]:
                self.write_text(name, files[name])

    def _change_length(self, before: int, after: int) -> None:
        positions = self.positions()
        done = positions[-1] if positions else Position()
        if not positions and self.model_file.exists():
            raise UserError(f"{self.path}: finished, and its last checkpoint is gone; " + self._instead())
        if done > Position(after):
            raise UserError(f"{self.path}: is past epoch {after} of {before} already; run.epochs can only be more")
        # First this: after a kill in between, the network is made again from the last checkpoint.
        if self.model_file.exists():
            os.replace(self.model_file, self.path / f"model-epoch-{done.epoch:04d}.keras")

    def _instead(self) -> str:
        if self.model_file.exists():
            return f"to start from what it learned, train with --weights {self.path} and another --out"
        return "leave out what differs, or name another --out"


@contextmanager
def _undistributed() -> Iterator[None]:
    # Keras creates variables while it saves. Distributed ones are created by all hosts together, and only one of them
    # saves.
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _state(model: "keras.Model") -> "dict[str, keras.Variable]":
    """All that decides how training goes on: weights, the optimizer's state and that of random layers, by name."""
    variables = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {f"{kind}-{number}": own for kind, group in variables.items() for number, own in enumerate(group)}


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def differences(begun: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each setting that differs, as ``group.key``, before and after."""
    pairs = {
        f"{group}.{key}": (begun.get(group, {}).get(key), value)
        for group, settings in now.items()
        for key, value in settings.items()
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
