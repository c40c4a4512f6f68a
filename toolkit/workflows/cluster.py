"""A bundle's predictions past one machine, see ``toolkit.transfer.cluster``."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle import find_bundle
from toolkit.inference import Prediction, Predictor
from toolkit.transfer.cluster import Task, connected, map_pictures
from toolkit.workflows.steps import Progress


@dataclass(frozen=True)
class PredictionJob:
    """What a node must have to predict.

    Attributes:
        files: the bundle's version directory, bytes by relative path.
        engine: see ``Predictor.load``.
        top_k: classes in an answer.
    """

    files: dict[str, bytes]
    engine: str
    top_k: int


class PredictionWorker:
    """The bundle in a folder of its own on the node."""

    def __init__(self, job: PredictionJob) -> None:
        self._top_k = job.top_k
        self._directory = tempfile.TemporaryDirectory()
        version_dir = Path(self._directory.name) / "bundle" / "1"
        for name, content in job.files.items():
            file = version_dir / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self._predictor = Predictor.load(version_dir, job.engine)

    def __call__(self, contents: list[bytes], notes: list[None]) -> list[list[Prediction]]:
        return self._predictor.predict(contents, top_k=self._top_k)


def predict_on_cluster(
    bundle: str | Path,
    images: Sequence[str | Path],
    *,
    address: str,
    engine: str = "auto",
    top_k: int = 5,
    progress: Progress | None = None,
) -> list[list[Prediction]]:
    """What ``Predictor.predict`` answers, worked out on all nodes of a Ray cluster.

    Args:
        bundle: ``…/NAME/VERSION``, or ``…/NAME``; it is brought to each node once.
        images: picture files on this machine.
        address: see ``toolkit.transfer.cluster.connected``.
        engine: see ``Predictor.load``; ``"auto"`` is decided on each node.
        top_k: classes in an answer.
        progress: called with (done, total) pictures.

    Returns:
        An answer for each picture, in order.

    Raises:
        UserError: no such bundle, cluster or engine, or a picture that cannot be read.
    """
    version_dir = find_bundle(bundle)
    files = {str(path.relative_to(version_dir)): path.read_bytes() for path in _files(version_dir)}
    tasks = [Task(str(path)) for path in images]
    answers: dict[int, list[Prediction]] = {}
    with connected(address):
        for found in map_pictures(PredictionWorker, PredictionJob(files, engine, top_k), tasks):
            answers |= found
            if progress:
                progress(len(answers), len(tasks))
    return [answers[index] for index in range(len(tasks))]


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
