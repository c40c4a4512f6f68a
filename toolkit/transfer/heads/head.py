"""A classifier on cached features, and the solvers that see the features themselves: mini-batches and least squares.

Mini-batches, for hidden layers and for features that do not fit into memory, are Keras': the heads of all strengths
train side by side, so each batch is read, converted and standardised once for all of them. Measured on 2 cores of an
AMD EPYC, shared with other work, with linear heads of ten classes on 2,048 float16 features in batches of 64: one head
learns from 75,000 to 118,000 examples a second, five together from 53,000 each; an Adam written in NumPy came to 58,000
to 180,000 for one, and so to 12,000 to 36,000 for each of five. Setting Keras up takes two to four seconds more, which
a small data set waits for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from toolkit.data.feed.split import class_weights
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras

Solver = Literal["auto", "lbfgs", "adam", "ridge"]
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]

#: Inverse regularisation strengths to choose from, strongest first. For ``ridge`` they are in units of the features'
#: total variance.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "adam": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "ridge": (0.1, 1.0, 10.0, 100.0, 1e3),
}

_MANY_STEPS = 2000

_CONSTANT = 1e-6  # a feature that deviates less only adds noise


@dataclass(frozen=True)
class HeadOptions:
    """Options of fitting a head.

    Attributes:
        solver: ``"lbfgs"``, multinomial logistic regression to convergence; ``"adam"``, the same or a deeper head by
            mini-batches, which takes the place of ``lbfgs`` where the features do not fit into memory; ``"ridge"``,
            least squares in closed form. ``"auto"`` is ``adam`` with hidden layers, else ``lbfgs``.
        strengths: inverse regularisation strengths to choose from, ascending; by default the solver's own.
        balanced: weigh every class alike, whatever its share of the pictures.
        hidden: widths of further ReLU layers before the logits (``adam`` only).
        epochs: passes over the features (``adam`` only).
        batch_size: examples per step (``adam`` only).
        learning_rate: at the start; it falls to zero along a cosine (``adam`` only).
        seed: of initial weights and order (``adam`` only).
    """

    solver: Solver = "auto"
    strengths: tuple[float, ...] = ()
    balanced: bool = False
    hidden: tuple[int, ...] = ()
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in get_args(Solver):
            raise UserError(unknown_name("head", self.solver, list(get_args(Solver))))
        if self.hidden and self.solver not in ("auto", "adam"):
            raise UserError(f"hidden layers are trained by the head 'adam', not by {self.solver!r}")
        if min((*self.hidden, self.epochs, self.batch_size)) < 1:
            raise UserError("a head's hidden widths, epochs and batch size must be at least 1")


@dataclass(frozen=True)
class Head:
    """``features @ kernel + bias``, layer by layer, with ReLU between them.

    Attributes:
        layers: float32 (kernel, bias) of shapes (inputs, outputs) and (outputs,), the last giving logits.
        solver: what fitted it.
        strength: the inverse regularisation strength that was chosen.
    """

    layers: Layers
    solver: str
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute float32 logits (examples, classes)."""
        return apply_layers(self.layers, features)

    def scaled(self, factor: float) -> "Head":
        """The head whose logits are ``factor`` times as large."""
        kernel, bias = self.layers[-1]
        return replace(self, layers=(*self.layers[:-1], (kernel * np.float32(factor), bias * np.float32(factor))))


def apply_layers(layers: Layers, features: np.ndarray, *, chunk: int = 4096) -> np.ndarray:
    """Compute float32 logits (examples, classes), some thousand examples at a time."""
    outputs = []
    for start in range(0, len(features), chunk):
        x = features[start : start + chunk].astype(np.float32)
        for kernel, bias in layers[:-1]:
            x = np.maximum(x @ kernel + bias, 0)
        outputs.append(x @ layers[-1][0] + layers[-1][1])
    return np.concatenate(outputs) if outputs else np.empty((0, len(layers[-1][1])), np.float32)


def fit_path(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    options: HeadOptions,
    scale: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[float, Layers]]:
    """Fit a head for every strength, by mini-batches or least squares.

    Args:
        features: (examples, features), float16 or float32; for ``adam``, ``numpy.memmap`` will do.
        labels: integer class per example.
        num_classes: width of the heads.
        options: the solver, ``"adam"`` or ``"ridge"``, and its settings.
        scale: what is subtracted from each feature for the fit, and what it is then divided by. That is folded into
            the layers.

    Yields:
        Each strength with the layers fitted under it, for features as they are.
    """
    strengths = options.strengths or STRENGTHS[options.solver]
    weights = class_weights(labels.tolist(), num_classes) if options.balanced else None
    mean, std = scale
    fits: Iterable[Layers]
    if options.solver == "adam":
        fits = _train(features, labels, num_classes, weights, replace(options, strengths=strengths), (mean, std))
    else:
        x = (features.astype(np.float32) - mean) / std
        shares = np.array([(weights or {}).get(label, 1.0) for label in range(num_classes)])
        fits = _ridge_path(x, labels, shares, strengths)
    for strength, ((kernel, bias), *others) in zip(strengths, fits, strict=True):
        first = (kernel / std[:, None]).astype(np.float32)
        yield strength, ((first, (bias - mean @ first).astype(np.float32)), *others)


def moments(features: np.ndarray, *, chunk: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of each feature, float32, some hundred examples at a time.

    scikit-learn's ``StandardScaler.partial_fit`` takes many times as long: 15,000 examples of 2,048 features a second.

    Returns:
        Mean, and a deviation that is 1 where a feature does not vary.
    """
    pivot = features[:chunk].astype(np.float32).mean(axis=0)  # else a small deviation on a large mean would cancel
    total, squares = np.zeros(len(pivot)), np.zeros(len(pivot))
    for start in range(0, len(features), chunk):
        part = features[start : start + chunk].astype(np.float32) - pivot
        total += part.sum(axis=0)
        squares += np.square(part, out=part).sum(axis=0)
    shift = total / len(features)
    std = np.sqrt(np.maximum(squares / len(features) - shift**2, 0))
    return (pivot + shift).astype(np.float32), np.where(std > _CONSTANT, std, 1).astype(np.float32)


def _ridge_path(
    x: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, strengths: tuple[float, ...]
) -> Iterator[Layers]:
    """Least squares towards one-hot targets, all strengths from one decomposition of the smaller Gram matrix."""
    share = (class_weights[labels] / class_weights[labels].sum()).astype(np.float32)[:, None]
    targets = np.eye(len(class_weights), dtype=np.float32)[labels]
    offset, centre = (targets * share).sum(axis=0), (x * share).sum(axis=0)
    root = np.sqrt(share)
    a, b = (x - centre) * root, (targets - offset) * root
    is_wide = a.shape[0] < a.shape[1]
    eigenvalues, basis = np.linalg.eigh((a @ a.T if is_wide else a.T @ a).astype(np.float64))
    projected = basis.T @ (b if is_wide else a.T @ b)
    for strength in strengths:
        solution = basis @ (projected / (np.maximum(eigenvalues, 0) + x.shape[1] / strength)[:, None])
        kernel = a.T @ solution if is_wide else solution
        yield ((kernel, offset - centre @ kernel),)


def _train(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    class_weights: dict[int, float] | None,
    options: HeadOptions,
    standard: tuple[np.ndarray, np.ndarray],
) -> list[Layers]:
    """Train a head for every strength by Adam, all on the same batches, of which one is in memory at a time.

    The heads share nothing but their input and the loss is the sum of theirs, so each learns as it would alone.

    Args:
        features: (examples, features); may lie on disk.
        labels: integer class per example.
        num_classes: width of each head.
        class_weights: of each class in the loss; None for all alike.
        options: widths, strengths, epochs, batch size, learning rate, seed.
        standard: mean and standard deviation of the features.

    Returns:
        Layers for standardised features, by strength.
    """
    from toolkit.transfer.fitting import FeatureBatches

    batches = FeatureBatches(features[None], labels, options.batch_size, options.seed, class_weights)
    inputs = keras.Input(features.shape[1:], dtype=str(features.dtype))
    x = keras.layers.Normalization(mean=standard[0], variance=standard[1] ** 2)(inputs)
    heads = [_new_layers(num_classes, options, strength, len(labels)) for strength in options.strengths]
    model = keras.Model(inputs, keras.layers.Concatenate()([keras.Sequential(layers)(x) for layers in heads]))

    def loss(labels: Any, logits: Any) -> Any:
        logits = keras.ops.reshape(logits, (-1, len(heads), num_classes))
        labels = keras.ops.repeat(keras.ops.reshape(labels, (-1, 1)), len(heads), axis=1)
        return keras.ops.sum(keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), axis=1)

    num_steps = options.epochs * len(batches)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, num_steps)
    # Several steps at a time, where there are so many that it pays for the seconds it takes to trace them: Keras takes
    # longer to start such a small one than to compute it. On JAX it would leave out the last few of them.
    at_once = 16 if num_steps > _MANY_STEPS and keras.backend.backend() == "tensorflow" else 1
    model.compile(keras.optimizers.Adam(rate), loss, steps_per_execution=at_once)
    data = batches.from_epoch(0, options.epochs)
    model.fit(data, steps_per_epoch=num_steps, shuffle=False, verbose=0)  # the batches come shuffled
    return [tuple(tuple(layer.get_weights()) for layer in layers) for layers in heads]


def _new_layers(num_classes: int, options: HeadOptions, strength: float, num_examples: int) -> list["keras.Layer"]:
    """Layers that start alike for every strength: the logits' need no broken symmetry and start from zeros."""

    def dense(units: int, initializer: Any, activation: str | None = None) -> "keras.Layer":
        penalty = keras.regularizers.L2(0.5 / (strength * num_examples))  # scikit-learn's, per example
        return keras.layers.Dense(units, activation, kernel_initializer=initializer, kernel_regularizer=penalty)

    he_normal = [keras.initializers.HeNormal(options.seed + number) for number, _ in enumerate(options.hidden)]
    hidden = [dense(units, initializer, "relu") for units, initializer in zip(options.hidden, he_normal, strict=True)]
    return [*hidden, dense(num_classes, "zeros")]
