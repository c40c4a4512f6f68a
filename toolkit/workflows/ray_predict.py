"""Predictions past one machine, over Ray: see ``toolkit.transfer.ray_actors``."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle import find_bundle
from toolkit.data import ImageError
from toolkit.inference import Predictor
from toolkit.inference.predictor import Answer, NamedAnswer
from toolkit.transfer.ray_actors import Task, connected, map_pictures


@dataclass(frozen=True)
class PredictOptions:
    """Engine, crops and classes of an answer, see ``Predictor.load_several``; ``"auto"`` is decided on each node."""

    engine: str = "auto"
    crops: int = 1
    scales: Sequence[int] = ()
    top_k: int = 5


class PredictionWorker:
    """The bundles in a folder of their own on the node; they come as bytes by relative path, with the options."""

    def __init__(self, job: tuple[list[dict[str, bytes]], PredictOptions]) -> None:
        bundles, options = job
        self._top_k = options.top_k
        self._directory = tempfile.TemporaryDirectory()
        version_dirs = [Path(self._directory.name) / str(number) / "1" for number in range(len(bundles))]
        for version_dir, files in zip(version_dirs, bundles, strict=True):
            for name, content in files.items():
                file = version_dir / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        self._predictor = Predictor.load_several(
            version_dirs, options.engine, crops=options.crops, scales=options.scales
        )

    def __call__(self, contents: list[bytes], notes: list[str]) -> list[NamedAnswer | ImageError]:
        rows = self._predictor.iter_answers(contents)
        return [self._answer(row, path) for row, path in zip(rows, notes, strict=True)]

    def _answer(self, row: Answer | ImageError, path: str) -> NamedAnswer | ImageError:
        if isinstance(row, ImageError):
            return ImageError(f"{path}: {str(row).partition(': ')[2]}")  # in the place of a number
        return self._predictor.named(row, self._top_k)


def predict_over_ray(
    bundles: Sequence[str | Path],
    images: Sequence[str | Path],
    options: PredictOptions,
    *,
    address: str,
) -> Iterator[NamedAnswer | ImageError]:
    """Answer this machine's pictures, in order, as ``Predictor.load_several`` does, on all nodes of a Ray cluster.

    Each bundle is brought to each node once. For ``address``, see ``toolkit.transfer.ray_actors.connected``.

    Yields:
        For each picture its answer, or the error that says why there is none.

    Raises:
        UserError: no such bundle, cluster or engine.
    """
    contents = [_contents(find_bundle(bundle, shipped=True)) for bundle in bundles]
    tasks = [Task(str(path), note=str(path)) for path in images]
    waiting: dict[int, NamedAnswer | ImageError] = {}  # for one before them
    given = 0
    with connected(address):
        for found in map_pictures(PredictionWorker, (contents, options), tasks, keep_bad=True):
            waiting |= found
            while given in waiting:
                yield waiting.pop(given)
                given += 1


def _contents(directory: Path) -> dict[str, bytes]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
