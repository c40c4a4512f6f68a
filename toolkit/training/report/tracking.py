"""Runs noted in experiment trackers, on this machine: MLflow's file store, Weights & Biases offline."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import UserError, unknown_name
from toolkit.progress import step
from toolkit.training.run_dir import RunDirectory

#: Trackers by name, with the module that each needs and the command that brings it.
TRACKERS = {
    "tensorboard": ("tensorboard", "pip install 'toolkit[tensorboard]'"),
    "mlflow": ("mlflow", "pip install mlflow-skinny"),
    "wandb": ("wandb", "pip install wandb"),
}
#: In a run's directory, by which runs of trackers a resumed run goes on.
_KNOWN = "tracking.json"
_EXPERIMENT = "toolkit"
_FIGURES = ("top1", "top5", "macro_f1")


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that there are not, or that are not installed.

    Raises:
        UserError: one of them is so.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(unknown_name("tracker", name, list(TRACKERS)))
        module, command = TRACKERS[name]
        if importlib.util.find_spec(module) is None:
            raise UserError(f"--track {name} needs {module}, which is not installed: {command}")


class Tracker(Protocol):
    """A run in an experiment tracker.

    Attributes:
        identity: by which it is found again there.
    """

    identity: str

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Note an epoch's metrics, as they stand in ``metrics.jsonl``."""
        ...

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Note what the held-out pictures came to, and the report."""
        ...

    def close(self, failed: bool) -> None: ...


class Tracking:
    """A run noted in trackers while it is under way, used in a ``with``; Keras' own callback serves TensorBoard.

    Args:
        names: of ``TRACKERS``.
        on_epoch: is told each epoch's metrics, too.
    """

    def __init__(self, names: Sequence[str], on_epoch: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._names = names
        self._on_epoch = on_epoch
        self._trackers: list[Tracker] = []

    def begin(self, run: RunDirectory, settings: Mapping[str, Any]) -> None:
        """Begin to note a run, or go on with what it was noted as before.

        Args:
            run: its directory, begun.
            settings: by group and key.
        """
        makers = {name: maker for name, maker in _MAKERS.items() if name in self._names}
        if not makers or not run.writer:
            return
        file = run.path / _KNOWN
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for name, maker in makers.items():
            with step(f"opening {name}"):
                tracker = maker(run.path, _flat(settings), known.get(name))
            self._trackers.append(tracker)
            known[name] = tracker.identity
        run.write_text(_KNOWN, json.dumps(known, indent=1) + "\n")

    def epoch(self, row: dict[str, Any]) -> None:
        """Note an epoch's metrics."""
        for tracker in self._trackers:
            tracker.epoch(row)
        if self._on_epoch:
            self._on_epoch(row)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Note what the held-out pictures came to."""
        for tracker in self._trackers:
            tracker.finish(metrics)

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for tracker in self._trackers:
            tracker.close(failed=kind is not None)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name settings as ``--set`` does.

    >>> _flat({"run": {"epochs": 3}})
    {'run.epochs': 3}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}


class _MLflow:
    """A run in MLflow: in the server of ``MLFLOW_TRACKING_URI``, else in ``mlruns`` of the working directory."""

    def __init__(self, path: Path, settings: dict[str, Any], identity: str | None) -> None:
        # The file store works as ever, but asks to be asked for by name.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri())
        self._path = path
        if identity is None:
            experiment = self._client.get_experiment_by_name(_EXPERIMENT)
            number = experiment.experiment_id if experiment else self._client.create_experiment(_EXPERIMENT)
            identity = self._client.create_run(number, run_name=path.name).info.run_id
            for name, value in settings.items():
                self._client.log_param(identity, name, value)
        else:
            self._client.update_run(identity, status="RUNNING")
        self.identity = identity

    def epoch(self, row: Mapping[str, Any]) -> None:
        for name, value in _numbers(row).items():
            if name not in ("epoch", "epochs"):
                self._client.log_metric(self.identity, name, value, step=row["epoch"])

    def finish(self, metrics: Mapping[str, Any]) -> None:
        for name, value in _numbers(metrics).items():
            if name in _FIGURES:
                self._client.log_metric(self.identity, f"{metrics['subset']}_{name}", value)
        self._client.log_artifact(self.identity, str(self._path / "report.html"))

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.identity, "FAILED" if failed else "FINISHED")


class _WandB:
    """A run in Weights & Biases, offline unless ``WANDB_MODE`` says otherwise, in the run's directory."""

    def __init__(self, path: Path, settings: dict[str, Any], identity: str | None) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=_EXPERIMENT, name=path.name, dir=path, mode=mode, id=identity, resume="allow", config=settings
        )
        self.identity = self._run.id

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._run.log(_numbers(row), step=row["epoch"])

    def finish(self, metrics: Mapping[str, Any]) -> None:
        shown = {f"{metrics['subset']}_{name}": metrics[name] for name in _FIGURES if name in metrics}
        self._run.summary.update(shown)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


_MAKERS: dict[str, Callable[[Path, dict[str, Any], str | None], Tracker]] = {"mlflow": _MLflow, "wandb": _WandB}
