"""The bundles below a directory as the protocol speaks of them: by name and version, with its errors."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import Manifest, Share, labelled_version, read_manifest, require_bundles
from toolkit.data import ImageError
from toolkit.data.pixels.decode import image_errors, open_image
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.inference.choice import answered_by, require_engine
from toolkit.inference.predictor import Answer, Decoded
from toolkit.inference.shelf import Outcome, Shelf, UnknownBundle
from toolkit.serving import protocol
from toolkit.serving.protocol import PredictRequest, RequestError
from toolkit.serving.traffic import Traffic, chosen, position_of

log = logging.getLogger(__name__)

#: Versions of one bundle that stay in memory: the newest, and the one it replaces or is compared with.
MAX_LOADED_VERSIONS = 2
#: A version that failed to load is tried again after this long.
RETRY_SECONDS = 30.0


class ModelTable:
    """The bundles below a directory, by name and version. Safe to call from several threads.

    Attributes:
        directory: where they lie.
        engine: that they are opened in, as in ``Predictor.load``.
    """

    def __init__(self, directory: str | Path, engine: str = "auto") -> None:
        """Look for bundles; load none yet. Arguments and errors are those of ``toolkit.serving.create_app``."""
        require_engine(engine)
        for path in _misnamed_versions(Path(directory)):
            number = int(path.name)
            log.warning("%s: not served, for a version has no leading zeros in its name; rename it %d", path, number)
        require_bundles(directory)
        self.directory = Path(directory).resolve()
        self.engine = engine
        self._shelf = Shelf(directory, max_versions=MAX_LOADED_VERSIONS, retry_seconds=RETRY_SECONDS, shared=True)
        self._traffic: dict[str, Traffic] = {}
        self._kept: dict[str, list[int]] = {}  # by bundle: versions that the shelf was told to keep
        self._answered: dict[tuple[str, str], int] = {}  # by bundle and label: the version that answered last

    def labelled(self, name: str, label: str) -> int:
        """Look up the version that a label means now, see ``toolkit.bundle.labels``.

        Raises:
            RequestError: no such bundle or label.
        """
        try:
            return labelled_version(self.directory, name, label)
        except UserError as error:
            raise RequestError(str(error), 404) from None

    def names(self) -> list[str]:
        """List the names of the bundles there are now."""
        return list(self._shelf.bundles())

    def get(self, name: str, version: int | None = None) -> tuple[int, Predictor]:
        """Take the version that answers now and its predictor; by default the highest that is loaded.

        Waits only where nothing of the bundle is loaded yet; a newer version is loaded beside the one that answers.

        Raises:
            RequestError: not found, or found and not loadable.
        """
        while True:
            number, outcome, _ = self.answering(name, version)
            predictor = outcome.result()
            if not isinstance(predictor, str):
                return number, predictor

    def answering(
        self, name: str, version: int | None = None, position: float | None = None
    ) -> tuple[int, Outcome, bool]:
        """Do as ``get`` without waiting, see ``Shelf.answering``.

        Where requests that name no version are shared out, the one of the label that ``position`` is for; while that is
        loaded, or where it cannot be, the one that the label meant before, or another label's.

        Args:
            name: the bundle's.
            version: by default the one that answers requests which name none.
            position: of the request, see ``traffic.position_of``; by default at random.

        Returns:
            The version, its outcome, and whether it was found for a request that names none, and is the one for such
            requests: the highest that answers, or with shares that of ``stable``.
        """
        shares = self.shares(name) if version is None else []
        if not shares:
            return *self._answering(name, version), version is None
        place = position_of(name, "") if position is None else position
        number, outcome = self._shared(name, chosen(shares, place))
        return number, outcome, number == shares[-1].version

    def _answering(self, name: str, version: int | None) -> tuple[int, Outcome]:
        try:
            return self._shelf.answering(name, version, self.engine)
        except UnknownBundle:
            raise protocol.not_found(name, version) from None
        except UserError as error:
            raise RequestError(str(error), 503) from None

    def _shared(self, name: str, shares: list[Share]) -> tuple[int, Outcome]:
        wanted = shares[0]
        loading: tuple[int, Outcome] | None = None
        problem: RequestError | None = None
        before = self._answered.get((name, wanted.label))
        for version in dict.fromkeys([wanted.version, before, *(share.version for share in shares)]):
            if version is None or (version == before != wanted.version and version not in self.loaded().get(name, ())):
                continue
            try:
                number, outcome = self._answering(name, version)
            except RequestError as error:
                problem = problem or error
                continue
            if outcome.done() and not isinstance(outcome.result(), str):
                if number == wanted.version:
                    self._answered[name, wanted.label] = number
                return number, outcome
            loading = loading or (number, outcome)
        if loading is None:
            assert problem is not None
            raise problem
        return loading

    def shares(self, name: str) -> list[Share]:
        """Give the labels whose versions answer requests that name none; empty where the highest version does."""
        traffic = self._traffic.get(name)
        if traffic is None:
            found = self._shelf.versions(name)
            if not found:
                return []
            traffic = self._traffic[name] = Traffic(next(iter(found.values())).parent)
        shares = traffic.shares()
        versions = [share.version for share in shares]
        if versions != self._kept.get(name):  # the shelf's lock is not for every request
            self._shelf.keep(name, versions)
            self._kept[name] = versions
        return shares

    def wanted(self, name: str) -> list[int | None]:
        """List the versions that requests which name none are answered by: those with shares, or None, the highest."""
        return [share.version for share in self.shares(name)] or [None]

    def manifest(self, name: str, version: int | None = None) -> tuple[int, Manifest]:
        """Read a version's manifest, by default that of the highest which has not failed to load.

        It tells of novelty only where the engine answers it.

        Raises:
            RequestError: not found, or its manifest is damaged.
        """
        found, errors = self._shelf.bundles().get(name, {}), self._shelf.errors(name, self.engine)
        if version is None and (shares := self.shares(name)):
            version = shares[-1].version  # that of ``stable``
        wanted = [number for number in found if version in (None, number)]
        if not wanted:
            raise protocol.not_found(name, version)
        number = max(wanted, key=lambda number: (not errors.get(number), number))
        try:
            manifest = read_manifest(found[number])
            engine = manifest.recommended_engine if self.engine == "recommended" else self.engine
            return number, answered_by(manifest, engine)
        except UserError as error:
            raise RequestError(str(error), 503) from None

    def require(self, name: str, version: int | None = None) -> None:
        """Refuse what there is not, without loading anything.

        Raises:
            RequestError: not found.
        """
        found = self._shelf.versions(name)
        if not found or version not in (None, *found):
            raise protocol.not_found(name, version)

    def versions(self, name: str) -> list[int]:
        """List the versions there are now, ascending; none where there is no such bundle."""
        return list(self._shelf.versions(name))

    def loaded(self) -> dict[str, list[int]]:
        """List the versions in memory of each bundle that has any."""
        return self._shelf.loaded(self.engine)

    def loading(self, name: str) -> list[int]:
        """List the versions of a bundle that are being loaded."""
        return self._shelf.loading(name, self.engine)

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Tell whether a bundle answers at once. Loading begins where it has not.

        Raises:
            RequestError: as ``get``.
        """
        wanted = self.wanted(name) if version is None else [version]
        outcomes: list[Outcome] = []
        problems: list[RequestError] = []
        for each in wanted:  # all of them, for loading begins with being asked
            try:
                outcomes.append(self._answering(name, each)[1])
            except RequestError as error:
                problems.append(error)
        if not outcomes:
            raise problems[0]
        return any(outcome.done() and not isinstance(outcome.result(), str) for outcome in outcomes)

    def readiness(self) -> tuple[bool, dict[str, str]]:
        """Tell whether all is loaded, and of each bundle ``ready``, ``loading`` or why it cannot be loaded.

        One that cannot be loaded is told of; the others are served all the same. Loading begins where it has not.
        """
        found = {}
        for name in self.names():
            try:
                found[name] = "ready" if self.is_ready(name) else "loading"
            except RequestError as error:
                found[name] = str(error)
        return "ready" in found.values() and "loading" not in found.values(), found

    def statuses(self, name: str, version: int | None = None) -> dict[int, str]:
        """Give by version the reason why it could not be loaded; empty where nothing is known against it.

        Raises:
            RequestError: not found.
        """
        found = self._shelf.errors(name, self.engine)
        if not found:
            raise RequestError(f"Could not find any versions of model {name}", 404)
        if version is None:
            return found
        if version not in found:
            raise RequestError(f"Could not find version {version} of model {name}", 404)
        return {version: found[version]}


@dataclass(frozen=True)
class Question:
    """A request's pictures, in whichever protocol it came.

    Attributes:
        signature: one of ``protocol.SIGNATURES``.
        pictures: encoded, or for the signature ``pixels`` uint8 (pictures, height, width, 3).
        place: names the picture at an index for an error.
    """

    signature: str
    pictures: list[bytes] | np.ndarray
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.pictures)


def as_question(request: PredictRequest, predictor: Predictor) -> Question:
    """Read the values of a TensorFlow Serving request.

    Raises:
        RequestError: a value is not what the signature takes; the message says which.
    """
    pictures: list[bytes] | np.ndarray
    if request.signature == "pixels":
        pictures = protocol.decode_pixels(request, predictor.manifest.preprocessing.size)
    else:
        pictures = protocol.decode_images(request)
    return Question(request.signature, pictures, request.place)


def count_pixels(question: Question, max_pixels: int) -> list[int]:
    """Read the pictures' headers, and count the pixels each will have once decoded; none for what has no header.

    Raises:
        RequestError: together they have more than ``max_pixels``.
    """
    if isinstance(question.pictures, np.ndarray):
        return []
    counts = []
    for picture in question.pictures:
        try:
            with image_errors("the picture"), open_image(picture) as image:
                counts.append(image.width * image.height)
        except ImageError:  # decoding it says what is wrong
            counts.append(0)
    if sum(counts) > max_pixels and len(counts) > 1:
        raise RequestError(
            f"the request's {len(counts)} pictures have {sum(counts):,} pixels together; this server takes at most "
            f"{max_pixels:,}; send fewer at a time, or smaller ones",
            413,
        )
    if sum(counts) > max_pixels:
        raise RequestError(
            f"{question.place(0)}: the picture has {sum(counts):,} pixels; this server takes at most {max_pixels:,}",
            413,
        )
    return counts


def decode_picture(predictor: Predictor, question: Question, index: int) -> Decoded:
    """Decode one of a question's pictures.

    Raises:
        RequestError: it cannot be read; the message says which and why.
    """
    try:
        return predictor.decode(question.pictures[index])
    except ImageError as error:
        raise RequestError(f"{question.place(index)}: {error.reason('the picture')}") from None


def ranked(predictor: Predictor, answers: Sequence[Answer]) -> dict[str, Any]:
    """Give the outputs of the signatures that classify, by name, one item per picture."""
    best = [predictor.top(answer.probabilities, protocol.TOP_K) for answer in answers]
    outputs: dict[str, Any] = {
        "probabilities": np.stack([answer.probabilities for answer in answers]),
        "top_labels": [[prediction.label for prediction in row] for row in best],
        "top_scores": np.array([[prediction.probability for prediction in row] for row in best], np.float32),
    }
    if predictor.novelty_above is not None:
        outputs["novelty"] = np.array([answer.novelty for answer in answers], np.float32)
    return outputs


def _misnamed_versions(directory: Path) -> list[Path]:
    found = [path for pattern in ("0?*", "*/0?*") for path in sorted(directory.glob(pattern))]
    return [path for path in found if path.name.isascii() and path.name.isdecimal() and path.is_dir()]
