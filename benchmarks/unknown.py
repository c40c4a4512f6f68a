"""Scores that tell pictures of no class from pictures of the classes, on cached features of a network.

    TOOLKIT_DATA=… python benchmarks/unknown.py --weights FILE.caffemodel --out benchmarks/results/unknown.json

Every folder below ``$TOOLKIT_DATA`` with a ``train`` part is a set, tested on its ``test`` (or ``val``) part. A set's
classifier is ``select_head``'s, as in ``toolkit finetune``. What it has to know for unknown are the test pictures of
every other set, flat pictures and noise, and, of a set with four classes or more, those of every second class, which
then does not teach. Each score is fitted on the training pictures, and its threshold refuses 5 % of them out of fold;
no test picture has a say in it. "novelty, as shipped" is ``fit_novelty``, with its own threshold.

"auroc" is that of own test pictures against those of another set; "false_rejects" are own test pictures beyond the
threshold, and "false_accepts" others within it, all in per cent.
"""

import functools
import operator
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import command_line, percent, write_report
from PIL import Image
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from toolkit.cli.output import print_table
from toolkit.data import scan_folder, teaching_split
from toolkit.factory import create_model, preprocessing_of
from toolkit.transfer.features import FeatureExtractor
from toolkit.transfer.heads.feature_set import normalize_rows
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds
from toolkit.transfer.heads.novelty import fit_novelty
from toolkit.transfer.heads.selection import Selection, SelectionOptions, select_head
from toolkit.transfer.stages import pooled_cuts

REFUSED = 0.05
FLAT = "flat and noise"
CLASSES = "classes left out"
SHIPPED = "novelty, as shipped"

Features = dict[str, np.ndarray]
Score = Callable[[np.ndarray], np.ndarray]
#: From inner products and the labels of what teaches to a number for each picture, the higher the stranger.
Fit = Callable[["Products", np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Set:
    """A set's pictures as features by cut, and its classifier."""

    name: str
    train: Features
    labels: np.ndarray
    lots: np.ndarray
    test: Features
    test_labels: np.ndarray
    chosen: Selection


def main() -> None:
    arguments = command_line(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as directory:
        arguments.cache = arguments.cache or Path(directory) / "cache"
        model = create_model(arguments.model, num_classes=2, weights=arguments.weights)
        with FeatureExtractor(
            model, preprocessing_of(model), cache_dir=arguments.cache, cuts=pooled_cuts(model)
        ) as extractor:
            sets = [
                _set(extractor, folder) for folder in sorted(arguments.data.iterdir()) if (folder / "train").is_dir()
            ]
            flat = _features(extractor, list(_flat_pictures(Path(directory))))
    rows = []
    for own in sets:
        others = {other.name: other.test for other in sets if other is not own} | {FLAT: flat}
        rows += _measured(own, others)
        for half, strange in _halves(own):
            rows += _measured(half, {CLASSES: strange})
    summary = _summary(rows)
    columns = list(summary[0])
    print_table([[row[column] for column in columns] for row in summary], columns)
    write_report(arguments.out, {"refused": REFUSED, "mean_over_sets": summary, "rows": rows})


def _set(extractor: FeatureExtractor, folder: Path) -> Set:
    scanned = scan_folder(folder)
    split, lots = teaching_split(scanned, keep_val="test" not in scanned.splits)
    train, test = _features(extractor, split.train.paths), _features(extractor, split.held_out[1].paths)
    labels = np.asarray(split.train.labels)
    return _with_classifier(folder.name, (train, labels, lots.lot_of), (test, np.asarray(split.held_out[1].labels)))


def _with_classifier(
    name: str, train: tuple[Features, np.ndarray, np.ndarray], test: tuple[Features, np.ndarray]
) -> Set:
    features, labels, lots = train
    options = SelectionOptions(lots=lots)
    return Set(name, *train, *test, select_head(features, labels, num_classes=labels.max() + 1, options=options))


def _halves(own: Set) -> Iterator[tuple[Set, Features]]:
    """Leave every second class out, then the others: a set of the rest, and test pictures of those left out."""
    if own.labels.max() < 3:
        return

    def part(features: Features, rows: np.ndarray) -> Features:
        return {cut: values[rows] for cut, values in features.items()}

    for half in (0, 1):
        kept, known = own.labels % 2 == half, own.test_labels % 2 == half
        train = part(own.train, kept), own.labels[kept] // 2, own.lots[kept]
        test = part(own.test, known), own.test_labels[known] // 2
        yield _with_classifier(own.name, train, test), part(own.test, ~known)


def _features(extractor: FeatureExtractor, paths: Any) -> Features:
    return {name: own.plain.astype(np.float32) for name, own in extractor.extract_cuts(paths).items()}


def _flat_pictures(directory: Path) -> Iterator[Path]:
    """Black, white, grey and coloured pictures, ramps, and noise of several grains."""
    rng = np.random.default_rng(0)
    side = 256
    ramp = np.linspace(0, 255, side)[None, :, None]
    pictures = [np.full((side, side, 3), value) for value in (0, 64, 127, 192, 255)]
    pictures += [np.broadcast_to(rng.integers(0, 256, 3), (side, side, 3)) for _ in range(5)]
    pictures += [np.broadcast_to(own, (side, side, 3)) for own in (ramp, ramp.transpose(1, 0, 2), 255 - ramp)]
    for grain in (1, 4, 16, 64):
        for channels in (1, 3):
            noise = rng.integers(0, 256, (side // grain, side // grain, channels))
            pictures.append(np.broadcast_to(noise.repeat(grain, 0).repeat(grain, 1), (side, side, 3)))
    pictures += [np.clip(rng.normal(127, deviation, (side, side, 3)), 0, 255) for deviation in (5, 20, 60)]
    for number, pixels in enumerate(pictures):
        path = directory / f"{number}.png"
        Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(path)
        yield path


def _measured(own: Set, others: dict[str, Features]) -> Iterator[dict[str, Any]]:
    """Rows of one set: a score against each other set."""
    print(f"{own.name}: {own.chosen.chosen}, out of fold {own.chosen.accuracy}", file=sys.stderr)
    scored = {**_of_logits(own, others), **_of_features(own, others)}
    thresholds = {name: float(np.quantile(taught, 1 - REFUSED)) for name, (taught, _, _) in scored.items()}
    scored[SHIPPED], thresholds[SHIPPED] = _shipped(own, others), 1.0
    for name, (_, known, unknown) in scored.items():
        threshold = thresholds[name]
        for other, strange in unknown.items():
            auroc = roc_auc_score(np.repeat([0, 1], [len(known), len(strange)]), np.concatenate([known, strange]))
            yield {
                "set": own.name,
                "score": name,
                "against": other,
                "auroc": percent(auroc),
                "false_rejects": percent(np.mean(known > threshold)),
                "false_accepts": percent(np.mean(strange <= threshold)),
            }


def _shipped(own: Set, others: dict[str, Features]) -> "Scored":
    last = list(own.train)[-1]
    novelty = fit_novelty(own.train[last], own.labels, int(own.labels.max()) + 1, lots=own.lots)
    assert novelty is not None
    strange = {name: novelty.scores(features[last]) for name, features in others.items()}
    return novelty.scores(own.train[last]), novelty.scores(own.test[last]), strange


Scored = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def _of_logits(own: Set, others: dict[str, Features]) -> dict[str, Scored]:
    def logits(features: Features) -> np.ndarray:
        return own.chosen.head.logits(own.chosen.features.join(features))

    scores: dict[str, Score] = {
        "top probability": lambda z: logsumexp(z, axis=1) - z.max(axis=1),
        "energy": lambda z: -logsumexp(z, axis=1),
        "largest logit": lambda z: -z.max(axis=1),
    }
    return {
        name: (
            score(own.chosen.logits[own.chosen.judged]),
            score(logits(own.test)),
            {o: score(logits(f)) for o, f in others.items()},
        )
        for name, score in scores.items()
    }


def _of_features(own: Set, others: dict[str, Features]) -> dict[str, Scored]:
    folds = assign_folds(own.labels, own.lots)
    num_train, num_test = len(own.labels), len(next(iter(own.test.values())))
    bounds = np.cumsum([num_train, num_test, *(len(next(iter(f.values()))) for f in others.values())])[:-1]
    everything = {
        cut: np.concatenate([own.train[cut], own.test[cut], *(f[cut] for f in others.values())]) for cut in own.train
    }
    found = {}
    for reading, products in _readings(own, everything).items():
        for method, fit in METHODS.items():
            taught = np.empty(num_train)
            for fold in range(NUM_FOLDS):
                held_out = np.flatnonzero(folds == fold)
                rest = np.flatnonzero(folds != fold)
                taught[held_out] = fit(products.part(held_out, rest), own.labels[rest])
            _, test, *strange = np.split(fit(products, own.labels), bounds)
            found[f"{method}, {reading}"] = taught, test, dict(zip(others, strange, strict=True))
    return found


@dataclass(frozen=True)
class Products:
    """Inner products: of pictures with those that teach, of these with each other, of pictures with themselves.

    Every score here is a function of them, whatever the width of the features.
    """

    cross: np.ndarray
    gram: np.ndarray
    squares: np.ndarray

    @staticmethod
    def of(x: np.ndarray, num_train: int) -> "Products":
        cross = x @ x[:num_train].T
        return Products(cross, cross[:num_train], np.square(x).sum(axis=1))

    def __add__(self, other: "Products") -> "Products":
        return Products(self.cross + other.cross, self.gram + other.gram, self.squares + other.squares)

    def part(self, pictures: np.ndarray, taught: np.ndarray) -> "Products":
        return Products(self.cross[np.ix_(pictures, taught)], self.gram[np.ix_(taught, taught)], self.squares[pictures])


def _readings(own: Set, everything: Features) -> dict[str, Products]:
    cuts, count = list(own.train), len(own.labels)
    units = [Products.of(normalize_rows(everything[cut]), count) for cut in cuts]
    joined = {n: functools.reduce(operator.add, units[-n:]) for n in range(1, len(cuts) + 1)}
    plain = Products.of(everything[cuts[-1]], count)
    chosen = own.chosen.features
    found = {"last": plain} | {f"last {n} normalised": joined[n] for n in (1, len(cuts))}
    found["classifier's"] = joined.get(len(chosen.cuts), plain) if chosen.normalized else plain
    return found


def _distances(products: Products, means: np.ndarray) -> np.ndarray:
    """Squared distances to means, each a row of weights of what teaches: (pictures, means)."""
    lengths = np.einsum("ci,ij,cj->c", means, products.gram, means)
    return products.squares[:, None] - 2 * products.cross @ means.T + lengths


def _class_means(labels: np.ndarray) -> np.ndarray:
    one_hot = (np.unique(labels)[:, None] == labels).astype(float)
    return one_hot / one_hot.sum(axis=1, keepdims=True)


def _overall(labels: np.ndarray) -> np.ndarray:
    return np.full((1, len(labels)), 1 / len(labels))


def mahalanobis(
    shrink: float, rank: int | None = None, *, of: Callable[[np.ndarray], np.ndarray] = _class_means
) -> Fit:
    """Distance to the nearest mean under one covariance around all means, mixed with ``shrink`` of a sphere."""

    def fit(products: Products, labels: np.ndarray) -> np.ndarray:
        means = of(labels)
        nearest = means[(means > 0).argmax(axis=0)]
        centring = np.eye(len(labels)) - nearest
        values, vectors = np.linalg.eigh(centring @ products.gram @ centring.T)
        kept = np.flatnonzero(values > 1e-6 * values.max())[::-1][:rank]
        total = values.sum() / len(labels)
        values, vectors = values[kept] / len(labels), vectors[:, kept]
        onto = centring.T @ vectors / np.sqrt(values * len(labels))  # weights of the principal directions
        floor = shrink * total / EFFECTIVE
        weights = 1 - floor / ((1 - shrink) * values + floor)
        away = _distances(products, means)
        along = (products.cross @ onto)[:, None] - (means @ products.gram @ onto)
        return (away - (np.square(along) * weights).sum(axis=-1)).min(axis=1) / floor

    return fit


EFFECTIVE = 100  # dimensions among which a sphere shares the variance


def relative(shrink: float) -> Fit:
    near, overall = mahalanobis(shrink), mahalanobis(shrink, of=_overall)
    return lambda products, labels: near(products, labels) - overall(products, labels)


def residual(share: float) -> Fit:
    """Squared length of what the principal directions with this share of the variance leave."""

    def fit(products: Products, labels: np.ndarray) -> np.ndarray:
        centring = np.eye(len(labels)) - 1 / len(labels)
        values, vectors = np.linalg.eigh(centring @ products.gram @ centring)
        values, vectors = values[::-1], vectors[:, ::-1]
        rank = 1 + int(np.searchsorted(np.cumsum(values) / values.sum(), share))
        onto = centring @ vectors[:, :rank] / np.sqrt(values[:rank])
        mean = _overall(labels)
        along = products.cross @ onto - mean @ products.gram @ onto
        return _distances(products, mean)[:, 0] - np.square(along).sum(axis=1)

    return fit


def neighbour(k: int) -> Fit:
    """Squared distance to the k-th nearest training picture."""

    def fit(products: Products, labels: np.ndarray) -> np.ndarray:
        squares = products.squares[:, None] - 2 * products.cross + np.diag(products.gram)
        return np.partition(squares, k - 1, axis=1)[:, k - 1]

    return fit


METHODS: dict[str, Fit] = {
    "nearest mean": lambda products, labels: _distances(products, _class_means(labels)).min(axis=1),
    "neighbour 5": neighbour(5),
    "mahalanobis": mahalanobis(0.3),
    "relative mahalanobis": relative(0.3),
    "residual": residual(0.9),
}


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over sets, by what they are held against."""

    def mean(rows: list[dict[str, Any]], key: str) -> float:
        return round(float(np.mean([row[key] for row in rows])), 2)

    summary = []
    for score in dict.fromkeys(row["score"] for row in rows):
        own = [row for row in rows if row["score"] == score]
        flat, left_out = ([row for row in own if row["against"] == kind] for kind in (FLAT, CLASSES))
        sets = [row for row in own if row["against"] not in (FLAT, CLASSES)]
        figures = {
            "auroc": mean(sets, "auroc"),
            "false_rejects": mean(flat, "false_rejects"),
            "false_accepts": mean(sets, "false_accepts"),
            "worst": max(row["false_accepts"] for row in sets),
            "flat_accepts": mean(flat, "false_accepts"),
            "classes_auroc": mean(left_out, "auroc"),
            "classes_accepts": mean(left_out, "false_accepts"),
        }
        summary.append({"score": score} | figures)
    return summary


if __name__ == "__main__":
    main()
