"""The bundles below a directory as the protocol speaks of them: by name and version, with its errors."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import Manifest, read_manifest, require_bundles
from toolkit.data import ImageError
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.inference.choice import require_engine
from toolkit.inference.predictor import Answer, Decoded
from toolkit.inference.shelf import Shelf, UnknownBundle
from toolkit.serving import protocol
from toolkit.serving.protocol import PredictRequest, RequestError

#: Pictures that are decoded and run at once.
BATCH_SIZE = 32
#: Versions of one bundle that stay in memory: the newest, and the one it replaces or is compared with.
MAX_LOADED_VERSIONS = 2
#: A version that failed to load is tried again after this long.
RETRY_SECONDS = 30.0


class ModelTable:
    """The bundles below a directory, by name and version. Safe to call from several threads."""

    def __init__(self, directory: str | Path, engine: str = "auto") -> None:
        """Look for bundles; load none yet. Arguments and errors are those of ``toolkit.serving.create_app``."""
        require_engine(engine)
        require_bundles(directory)
        self._engine = engine
        self._shelf = Shelf(directory, max_versions=MAX_LOADED_VERSIONS, retry_seconds=RETRY_SECONDS)

    def names(self) -> list[str]:
        """List the names of the bundles there are now."""
        return list(self._shelf.bundles())

    def get(self, name: str, version: int | None = None) -> tuple[int, Predictor]:
        """Take a version and its predictor, loaded if it is not yet; by default the highest that loads.

        Raises:
            RequestError: not found, or found and not loadable.
        """
        try:
            return self._shelf.get(name, version, self._engine)
        except UnknownBundle:
            raise protocol.not_found(name, version) from None
        except UserError as error:
            raise RequestError(str(error), 503) from None

    def manifest(self, name: str, version: int | None = None) -> tuple[int, Manifest]:
        """Read a version's manifest, by default that of the highest which has not failed to load.

        Raises:
            RequestError: not found, or its manifest is damaged.
        """
        found, errors = self._shelf.bundles().get(name, {}), self._shelf.errors(name, self._engine)
        wanted = [number for number in found if version in (None, number)]
        if not wanted:
            raise protocol.not_found(name, version)
        number = max(wanted, key=lambda number: (not errors.get(number), number))
        try:
            return number, read_manifest(found[number])
        except UserError as error:
            raise RequestError(str(error), 503) from None

    def statuses(self, name: str, version: int | None = None) -> dict[int, str]:
        """Give by version the reason why it could not be loaded; empty where nothing is known against it.

        Raises:
            RequestError: not found.
        """
        found = self._shelf.errors(name, self._engine)
        if not found:
            raise RequestError(f"Could not find any versions of model {name}", 404)
        if version is None:
            return found
        if version not in found:
            raise RequestError(f"Could not find version {version} of model {name}", 404)
        return {version: found[version]}


def answer(predictor: Predictor, request: PredictRequest, decoders: Executor) -> dict[str, Any]:
    """Answer a request, its pictures decoded side by side: outputs by name, one item per picture.

    Raises:
        RequestError: a value is not what the signature takes; the message says which.
    """

    def decode(item: tuple[int, bytes]) -> Decoded:
        index, data = item
        try:
            return predictor.decode(data)
        except ImageError as error:
            raise RequestError(f"{request.place(index)}: {error.reason('the picture')}") from None

    def classify(batch: Sequence[tuple[int, bytes]]) -> list[Answer]:
        return predictor.answer_decoded(list(decoders.map(decode, batch)))

    def embed(batch: Sequence[tuple[int, bytes]]) -> np.ndarray:
        # The graph decodes for itself. Decoding here first refuses what every other signature refuses, oversized
        # pictures among it, and can name the one at fault.
        list(decoders.map(decode, batch))
        return predictor.features([data for _, data in batch])

    if request.signature == "pixels":
        pixels = protocol.decode_pixels(request, predictor.manifest.preprocessing.size)
        return _ranked(predictor, _in_batches(predictor.answer_pixels, pixels, BATCH_SIZE))
    images = list(enumerate(protocol.decode_images(request)))
    size = min(BATCH_SIZE, predictor.pictures_at_once)
    if request.signature == "features":
        return {"features": np.stack(_in_batches(embed, images, size))}
    return _ranked(predictor, _in_batches(classify, images, size))


def _ranked(predictor: Predictor, answers: Sequence[Answer]) -> dict[str, Any]:
    best = [predictor.top(answer.probabilities, protocol.TOP_K) for answer in answers]
    known = predictor.novelty_above is not None
    return {
        "probabilities": np.stack([answer.probabilities for answer in answers]),
        "top_labels": [[prediction.label for prediction in row] for row in best],
        "top_scores": [[prediction.probability for prediction in row] for row in best],
    } | ({"novelty": [answer.novelty for answer in answers]} if known else {})


def _in_batches(run: Callable[[Any], Iterable[Any]], values: Sequence[Any] | np.ndarray, size: int) -> list[Any]:
    return [answer for i in range(0, len(values), size) for answer in run(values[i : i + size])]
