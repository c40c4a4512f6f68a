"""The gate before publication: every engine answers the same pictures once, and the answers are compared."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.engines import ENGINES, FLOAT_ENGINES, Engine
from toolkit.engines.runtimes import Answers
from toolkit.metrics import top_k_accuracy
from toolkit.progress import step
from toolkit.spec import Preprocessing

log = logging.getLogger(__name__)

#: The network itself among the engines: what the others are held against.
REFERENCE = "keras"
#: The network with its novelty, where that is written too: the same for the second answer.
NOVELTY_REFERENCE = "keras with novelty"
#: Largest difference in probability between float engines.
FLOAT_TOLERANCE = 1e-4
#: The same for an engine that computes in bfloat16.
BFLOAT16_TOLERANCE = 1e-2
#: Pictures over which float engines are compared; all others are judged on all.
NUM_PARITY = 64
#: Largest difference in novelty between float engines, where 1 is the threshold.
NOVELTY_TOLERANCE = 1e-3
#: Largest difference in novelty, on average over pictures, of a quantized file.
QUANTIZED_NOVELTY = 0.1

_BATCH_SIZE = 32  # pictures at most
_BATCH_PIXELS = 4 * 224 * 224  # about: all engines hold what they computed a batch in, at one time
_NUM_NOISE = 16  # pictures that stand in for evaluation pictures
_KEPT_BYTES = 512 << 20  # of decoded pictures


@dataclass(frozen=True)
class AccuracyBudget:
    """Top-1 that a quantized file may lose: ``points`` percentage points or ``pictures``, whichever is more."""

    points: float = 1.0
    pictures: int = 2

    def allows(self, lost: float, num_examples: int) -> bool:
        """Tell whether losing the fraction ``lost`` over ``num_examples`` pictures is within the budget."""
        return lost * num_examples <= max(self.points / 100 * num_examples, self.pictures) + 1e-9


@dataclass(frozen=True)
class EngineAnswers:
    """Answers that engines gave for one set of pictures.

    Attributes:
        labels: of the pictures, integers (pictures,); None for noise, which has none.
        seen: by engine, the indices of the pictures it was shown, ascending.
        probabilities: by engine, float32 (pictures shown, classes).
        novelty: by engine that tells it, float32 (pictures shown,).
    """

    labels: np.ndarray | None
    seen: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]
    novelty: Mapping[str, np.ndarray]

    def of(self, engine: str, indices: np.ndarray) -> np.ndarray:
        """Look up an engine's probabilities for some of the pictures that it was shown."""
        return self.probabilities[engine][np.searchsorted(self.seen[engine], indices)]


@dataclass(frozen=True)
class Comparison:
    """Findings of the gate.

    Attributes:
        parity: by engine, the largest difference in probability from the reference.
        scores: ``top1``, ``top5``, ``n`` of the reference and ``top1_ENGINE`` of quantized engines, fractions; empty
            without evaluation pictures.
        objections: by engine, why the bundle should not be published.
    """

    parity: dict[str, float]
    scores: dict[str, float]
    objections: dict[str, str]

    def trusts(self, engine: str) -> bool:
        """Tell whether an engine may be recommended: no objection, and if quantized, its accuracy was measured."""
        return engine not in self.objections and (engine in FLOAT_ENGINES or f"top1_{engine}" in self.scores)


class HeldOutPictures:
    """Evaluation pictures, or noise, in batches: decoded once, unless they are too many to be kept in memory."""

    def __init__(self, evaluation: Subset | None, preprocessing: Preprocessing) -> None:
        self._paths = evaluation.paths if evaluation is not None else ()
        self._preprocessing = preprocessing
        self._batch_size = max(1, min(_BATCH_SIZE, _BATCH_PIXELS // math.prod(preprocessing.size)))
        self._kept: list[np.ndarray] = []
        #: integers (pictures,); None for noise, which has none
        self.labels = np.asarray(evaluation.labels) if evaluation is not None and len(evaluation) else None

    def __len__(self) -> int:
        return len(self._paths) or _NUM_NOISE

    def batches(self, label: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index of the first picture, and pixels, uint8 (n, height, width, 3)."""
        with step(label, len(self)) as told:
            for start in range(0, len(self), self._batch_size):
                pixels = self._batch(start)
                yield start, pixels
                told(start + len(pixels))

    def answers(self, ask: Callable[[np.ndarray], np.ndarray], label: str) -> np.ndarray:
        """Collect what ``ask``, such as an engine's ``probabilities``, gives for all pixels, (pictures, …)."""
        return np.concatenate([ask(pixels) for _, pixels in self.batches(label)])

    def _batch(self, start: int) -> np.ndarray:
        number = start // self._batch_size
        if number < len(self._kept):
            return self._kept[number]
        part = slice(start, start + self._batch_size)
        if self._paths:
            pixels = load_pixels(self._paths[part], self._preprocessing)
        else:
            pixels = noise(self._preprocessing)[part]
        # Only from the first on without a gap, so that a number is a place.
        if number == len(self._kept) and (number + 1) * pixels.nbytes <= _KEPT_BYTES:
            self._kept.append(pixels)
        return pixels


def noise(preprocessing: Preprocessing) -> np.ndarray:
    """Draw the pixels that stand in for evaluation pictures, the same each time: uint8 (n, height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (_NUM_NOISE, *preprocessing.size, 3), np.uint8)


def collect_answers(
    reference: Engine | np.ndarray,
    engines: Mapping[str, Engine],
    preprocessing: Preprocessing,
    evaluation: Subset | HeldOutPictures | None,
    *,
    shown: Mapping[str, np.ndarray] | None = None,
) -> EngineAnswers:
    """Run engines over the evaluation pictures in one pass.

    The network and quantized engines are shown all pictures, float engines and the network with its novelty
    ``NUM_PARITY`` of them.

    Args:
        reference: the network, or its probabilities for all pictures where they are known.
        engines: the bundle's, by name, and any others under names of their own, which are shown nothing by default.
        preprocessing: what the network was trained with.
        evaluation: held-out pictures; without any, noise serves.
        shown: by engine, indices of further pictures to show it.

    Returns:
        The answers, with the network's under ``REFERENCE``.
    """
    pictures = evaluation if isinstance(evaluation, HeldOutPictures) else HeldOutPictures(evaluation, preprocessing)
    total = len(pictures)
    seen = {REFERENCE: np.arange(total)}
    for name in engines:
        few = name in FLOAT_ENGINES or name == NOVELTY_REFERENCE
        own = _spread(total) if few else np.arange(total if name in ENGINES else 0)
        seen[name] = np.union1d(own, (shown or {}).get(name, ())).astype(int)
    parts: dict[str, list[Answers]] = {name: [] for name in seen}
    running = dict(engines)
    if isinstance(reference, np.ndarray):
        parts[REFERENCE] = [Answers(reference)]
    else:
        running[REFERENCE] = reference
    for start, pixels in pictures.batches("comparing engines on held-out pictures"):
        for name, engine in running.items():
            chosen = seen[name][(seen[name] >= start) & (seen[name] < start + len(pixels))] - start
            if len(chosen):
                parts[name].append(engine.answers(pixels[chosen]))
    novelty = {name: [part.novelty for part in own if part.novelty is not None] for name, own in parts.items()}
    return EngineAnswers(
        pictures.labels,
        seen,
        {name: np.concatenate([part.probabilities for part in own]) for name, own in parts.items()},
        {name: np.concatenate(own) for name, own in novelty.items() if own},
    )


def compare_novelty(answers: EngineAnswers) -> dict[str, float]:
    """Compare the second answer of engines with the network's, on the pictures that it was shown for that.

    Returns:
        By engine that has one, the largest difference, and of quantized engines the mean.
    """
    judged = answers.seen.get(NOVELTY_REFERENCE, np.arange(0))
    found: dict[str, float] = {}
    for name in filter(ENGINES.__contains__, answers.novelty if len(judged) else ()):
        own = answers.novelty[name][np.searchsorted(answers.seen[name], judged)]
        differences = np.abs(own - answers.novelty[NOVELTY_REFERENCE])
        found[name] = float(differences.max() if name in FLOAT_ENGINES else differences.mean())
    return found


def novelty_objections(differences: Mapping[str, float]) -> dict[str, str]:
    """Say by engine why its novelty should not be published."""
    found = {}
    for name, difference in differences.items():
        tolerance = NOVELTY_TOLERANCE if name in FLOAT_ENGINES else QUANTIZED_NOVELTY
        if not difference <= tolerance:  # so that NaN is an objection too
            found[name] = f"{name} answers another novelty than Keras, by {difference:.2g} of 1, more than {tolerance}"
    return found


def compare(answers: EngineAnswers, budget: AccuracyBudget) -> Comparison:
    """Hold the engines of a bundle against its network; answers of engines that are no bundle's are left out."""
    expected, labels = answers.probabilities[REFERENCE], answers.labels
    parity: dict[str, float] = {}
    for name in filter(ENGINES.__contains__, answers.probabilities):
        judged = _spread(len(expected)) if name in FLOAT_ENGINES else answers.seen[name]
        parity[name] = float(np.abs(answers.of(name, judged) - expected[judged]).max())  # NaN stays
        log.info("%s: largest difference in probability from Keras %.2g", name, parity[name])
    scores: dict[str, float] = {}
    if labels is not None:
        scores = {f"top{k}": top_k_accuracy(expected, labels, k) for k in (1, 5)}
        quantized = [name for name in parity if name not in FLOAT_ENGINES]
        scores |= {f"top1_{name}": top_k_accuracy(answers.probabilities[name], labels, 1) for name in quantized}
        scores["n"] = len(labels)
    return Comparison(parity, scores, _objections(parity, scores, budget))


def _spread(total: int) -> np.ndarray:
    """Choose the pictures that float engines are compared on.

    Pictures come sorted by class: taken from the front, they would show one class only.
    """
    return np.unique(np.linspace(0, total - 1, NUM_PARITY).astype(int))


def _objections(parity: dict[str, float], scores: dict[str, float], budget: AccuracyBudget) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, difference in parity.items():
        tolerance = FLOAT_TOLERANCE if name in FLOAT_ENGINES else BFLOAT16_TOLERANCE if ENGINES[name].bfloat16 else None
        if tolerance is not None and not difference <= tolerance:  # so that NaN is an objection too
            found[name] = f"{name} differs from Keras by {difference:.2g}, more than {tolerance}"
        elif f"top1_{name}" in scores:
            lost = scores["top1"] - scores[f"top1_{name}"]
            if not budget.allows(lost, int(scores["n"])):
                found[name] = f"{name} loses {100 * lost:.1f} points of top-1 over {scores['n']} pictures"
    return found
