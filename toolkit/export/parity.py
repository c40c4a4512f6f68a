"""The gate before publication: every engine answers the same pictures, and the answers are compared."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.engines import FLOAT_ENGINES, Engine
from toolkit.metrics import top_k_accuracy
from toolkit.spec import Preprocessing

log = logging.getLogger(__name__)

#: Largest difference in probability between float engines.
FLOAT_TOLERANCE = 1e-4
#: Pictures over which float engines are compared; quantized ones are judged on all.
NUM_PARITY = 64

_BATCH_SIZE = 32
_NUM_NOISE = 16  # pictures that stand in for evaluation pictures


@dataclass(frozen=True)
class AccuracyBudget:
    """How much top-1 a quantized file may lose: ``points`` percentage points or ``pictures``, whichever is more."""

    points: float = 1.0
    pictures: int = 2

    def allows(self, lost: float, num_examples: int) -> bool:
        """Whether losing the fraction ``lost`` over ``num_examples`` pictures is within the budget."""
        return lost * num_examples <= max(self.points / 100 * num_examples, self.pictures) + 1e-9


@dataclass(frozen=True)
class Comparison:
    """What the gate found.

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
        """Whether an engine may be recommended: no objection, and if quantized, its accuracy was measured."""
        return engine not in self.objections and (engine in FLOAT_ENGINES or f"top1_{engine}" in self.scores)


def compare_engines(
    reference: Engine,
    engines: Mapping[str, Engine],
    preprocessing: Preprocessing,
    evaluation: Subset | None,
    budget: AccuracyBudget,
) -> Comparison:
    """Run all engines over the evaluation pictures, holding one batch of them at a time.

    Args:
        reference: the Keras network.
        engines: by name, what is compared with it.
        preprocessing: what the network was trained with.
        evaluation: held-out pictures; without any, noise serves for the float comparison and nothing is scored.
        budget: what a quantized engine may lose.
    """
    labels = np.asarray(evaluation.labels) if evaluation is not None and len(evaluation) else None
    total = _NUM_NOISE if labels is None else len(labels)
    # Pictures come sorted by class: taken from the front, they would show one class only.
    spread = np.unique(np.linspace(0, total - 1, NUM_PARITY).astype(int))
    parity = dict.fromkeys(engines, 0.0)
    hits: dict[str, int] = {"top1": 0, "top5": 0} | {f"top1_{n}": 0 for n in engines if n not in FLOAT_ENGINES}
    for start, pixels in _batches(preprocessing, evaluation if labels is not None else None):
        expected = reference.probabilities(pixels)
        everything = np.arange(len(pixels))
        some = spread[(spread >= start) & (spread < start + len(pixels))] - start
        answers = {}
        for name, engine in engines.items():
            chosen = some if name in FLOAT_ENGINES else everything
            if len(chosen):
                answers[name] = engine.probabilities(pixels[chosen])
                parity[name] = _worst(parity[name], np.abs(answers[name] - expected[chosen]).max())
        if labels is not None:
            truth = labels[start : start + len(pixels)]
            hits["top1"] += _hits(expected, truth, 1)
            hits["top5"] += _hits(expected, truth, 5)
            for name in set(engines) - set(FLOAT_ENGINES):
                hits[f"top1_{name}"] += _hits(answers[name], truth, 1)
    for name, difference in parity.items():
        log.info("%s: largest difference in probability from Keras %.2g", name, difference)
    scores: dict[str, float] = (
        {} if labels is None else {key: count / total for key, count in hits.items()} | {"n": total}
    )
    return Comparison(parity, scores, _objections(parity, scores, budget))


def _batches(preprocessing: Preprocessing, evaluation: Subset | None) -> Iterator[tuple[int, np.ndarray]]:
    if evaluation is None:
        yield 0, np.random.default_rng(0).integers(0, 256, (_NUM_NOISE, *preprocessing.size, 3), np.uint8)
        return
    for start in range(0, len(evaluation), _BATCH_SIZE):
        yield start, load_pixels(evaluation.paths[start : start + _BATCH_SIZE], preprocessing)


def _worst(before: float, difference: float) -> float:
    return before if difference <= before else float(difference)  # NaN is the worst of all, and stays


def _hits(probabilities: np.ndarray, labels: np.ndarray, k: int) -> int:
    return round(top_k_accuracy(probabilities, labels, k) * len(labels))


def _objections(parity: dict[str, float], scores: dict[str, float], budget: AccuracyBudget) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, difference in parity.items():
        if name in FLOAT_ENGINES and not difference <= FLOAT_TOLERANCE:  # so that NaN is an objection too
            found[name] = f"{name} differs from Keras by {difference:.2g}, more than {FLOAT_TOLERANCE}"
        elif f"top1_{name}" in scores:
            lost = scores["top1"] - scores[f"top1_{name}"]
            if not budget.allows(lost, int(scores["n"])):
                found[name] = f"{name} loses {100 * lost:.1f} points of top-1 over {scores['n']} pictures"
    return found
