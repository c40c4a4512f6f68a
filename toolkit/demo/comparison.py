"""One picture through several networks and engines, without a word of HTML: answers, times, sizes, agreement."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.data.pixels.decode import ImageError
from toolkit.demo.classifier import Classifier, decode
from toolkit.engines import FLOAT_ENGINES
from toolkit.errors import UserError
from toolkit.inference.predictor import Prediction

#: Networks in engines that are asked about one picture, at most.
MAX_ROWS = 12
#: Runs of a network whose median is told.
RUNS = 7


@dataclass(frozen=True)
class Row:
    """A network's answer in one engine.

    Attributes:
        bundle: ``NAME/VERSION``.
        engine: what ran it.
        predictions: best first; empty where there is a problem.
        reason: why the picture is of none of the classes, where it is not, see ``Predictor.reason``.
        milliseconds: of the network alone, the median of ``RUNS``.
        size: of the files that the engine reads, in bytes.
        difference: largest difference in probability, over all classes, from the bundle's first float engine; None for
            that one, or where there is none.
        problem: the reason why there is no answer.
    """

    bundle: str
    engine: str
    predictions: tuple[Prediction, ...] = ()
    reason: str = ""
    milliseconds: float = 0.0
    size: int = 0
    difference: float | None = None
    problem: str = ""

    @property
    def is_float(self) -> bool:
        """True where the engine computes in float32."""
        return self.engine in FLOAT_ENGINES

    @property
    def label(self) -> str:
        """The answer: the best label, or none where the picture is of none of the classes."""
        return "" if self.reason or not self.predictions else self.predictions[0].label

    def as_document(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self) | {"rejected": bool(self.reason)}


def default_engines(classifier: Classifier, bundle: str) -> list[str]:
    """Name the two that are worth a look: the fastest float engine, and the quantized one that goes with it."""
    chosen = [classifier.resolve_engine(bundle, "auto")]
    quantized = [name for name in classifier.engines(bundle) if name not in FLOAT_ENGINES]
    kin = [name for name in quantized if name.partition("-")[0] == chosen[0]]
    return chosen + (kin or quantized)[:1]


def pairs_of(classifier: Classifier, bundles: Sequence[str], engines: Sequence[str]) -> list[tuple[str, str]]:
    """Pair bundles with those engines that can run them, float first; ``auto`` is the fastest of those.

    A bundle that none of them can run is paired with what ``auto`` means for it.

    Raises:
        UserError: there is no such bundle or engine, or there are more pairs than are answered at once.
    """
    known = dict.fromkeys(name for bundle in bundles for name in classifier.engines(bundle))
    unknown = [name for name in engines if name not in ("auto", *known)]
    if unknown and bundles:
        raise UserError(f"engine {str(unknown[0])!r} cannot run any of these networks; choose from {', '.join(known)}")
    pairs: dict[tuple[str, str], None] = {}
    for bundle in bundles:
        own = [
            classifier.resolve_engine(bundle, name) for name in engines if name in ("auto", *classifier.engines(bundle))
        ]
        for name in sorted(
            own or [classifier.resolve_engine(bundle, "auto")], key=lambda name: name not in FLOAT_ENGINES
        ):
            pairs[bundle, name] = None
    if len(pairs) > MAX_ROWS:
        raise UserError(f"{len(pairs)} networks and engines; {MAX_ROWS} are compared at once, so choose fewer")
    return list(pairs)


def compare(classifier: Classifier, picture: bytes, pairs: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """Ask each network in its engine about a picture, one after the other.

    Args:
        classifier: has the bundles.
        picture: encoded.
        pairs: bundle and engine, the float engine of a bundle before its others, see ``pairs_of``.

    Raises:
        ImageError: the picture cannot be read.
    """
    references: dict[str, np.ndarray] = {}
    for bundle, engine in pairs:
        try:
            predictor = classifier.predictor(bundle, engine)
            decoded, *_ = decode(picture, predictor)
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                (answer,) = predictor.answer_decoded([decoded])
                times.append(time.perf_counter() - start)
            size = classifier.engine_bytes(bundle, engine)
        except ImageError:
            raise
        except UserError as error:
            yield Row(bundle, engine, problem=classifier.without_paths(error))
            continue
        reference = references.get(bundle)
        if reference is None and engine in FLOAT_ENGINES:
            references[bundle] = answer.probabilities
        yield Row(
            bundle,
            engine,
            tuple(predictor.top(answer.probabilities)),
            predictor.reason(answer),
            1000 * statistics.median(times),
            size,
            None if reference is None else float(np.abs(answer.probabilities - reference).max()),
        )


def verdict(rows: Sequence[Row]) -> tuple[str, int, int]:
    """Find the answer that most give: the label, empty for none of the classes; how many give it; of how many.

    Of several that are given as often, one that names a class.
    """
    answers = Counter(row.label for row in rows if not row.problem)
    label = max(answers, key=lambda label: (answers[label], bool(label)), default="")
    return label, answers[label], answers.total()
