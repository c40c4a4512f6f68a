"""Fine-tuning from pictures to a calibrated classifier, the frozen part running once per picture, ever."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.feed.split import Split
from toolkit.engines.runtimes import softmax
from toolkit.errors import UserError
from toolkit.factory import preprocessing_of
from toolkit.lazy import keras
from toolkit.metrics import fit_temperature, reject_threshold
from toolkit.network import as_classifier
from toolkit.progress import step
from toolkit.spec import Preprocessing
from toolkit.transfer.features import Extraction, Pictures
from toolkit.transfer.freeze import HIDDEN, FreezePlan, cut_tensor, freeze, plan_freezing, stages_of
from toolkit.transfer.head import Head, HeadOptions, fit_head
from toolkit.transfer.insight import knn_accuracy
from toolkit.transfer.unfrozen import UnfrozenOptions, train_unfrozen

log = logging.getLogger("toolkit")


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of fine-tuning.

    Attributes:
        unfreeze: ``"auto"`` follows the number of pictures, ``"none"`` trains the classifier alone, a stage's name
            trains from that one on.
        views: of each training picture; 1 is the plain picture alone.
        head: solver, class weights, hidden layers.
        unfrozen: epochs and rates of the unfrozen stages.
        extraction: dtype, engine and budgets of the cached features.
    """

    unfreeze: str = "auto"
    views: AugmentedViews = field(default_factory=AugmentedViews)
    head: HeadOptions = field(default_factory=HeadOptions)
    unfrozen: UnfrozenOptions = field(default_factory=UnfrozenOptions)
    extraction: Extraction = field(default_factory=Extraction)


@dataclass(frozen=True)
class Step:
    """A step of fine-tuning, the validation accuracy it reached, and whether the model is what it left."""

    name: str
    val_accuracy: float
    kept: bool


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned classifier and how it came about.

    Attributes:
        model: the flat network, head and all: the one given, or one with more layers where hidden ones were asked for.
        plan: what stayed frozen and why.
        head: fitted on the cached features; None for a network without a dense classifier.
        steps: validation accuracy after each step, in order.
        val_accuracy: of the model.
        val_logits: of the model for the validation pictures, float32 (pictures, classes).
        knn_val_accuracy: of the 10 nearest training pictures' vote, which learns nothing: what the features are worth.
        temperature: the divisor of the last step's logits that makes probabilities calibrated; it is in the weights.
        reject_below: refusing less probable answers costs 5 % of the right ones.
        features: of the plain training and validation pictures, for ``toolkit.transfer.insight``.
        num_computed: views that were not in the cache.
        engine: what computed them.
        seconds: by step.
    """

    model: "keras.Model"
    plan: FreezePlan
    head: Head | None = None
    steps: list[Step] = field(default_factory=list)
    val_accuracy: float = 0.0
    val_logits: np.ndarray | None = None
    knn_val_accuracy: float | None = None
    temperature: float = 1.0
    reject_below: float = 0.0
    features: tuple[np.ndarray, np.ndarray] | None = None
    num_computed: int = 0
    engine: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Describe how the classifier came about, JSON-ready."""
        return {
            "plan": str(self.plan),
            "steps": [asdict(step) for step in self.steps],
            "head": self.head
            and {"solver": self.head.solver, "strength": self.head.strength, "sweep": self.head.sweep},
            "knn_val_accuracy": self.knn_val_accuracy,
            "temperature": self.temperature,
            "reject_below": self.reject_below,
            "num_computed": self.num_computed,
            "engine": self.engine,
            "seconds": self.seconds,
        }


def finetune(
    model: "keras.Model",
    split: Split,
    preprocessing: Preprocessing | None = None,
    *,
    cache_dir: str | Path,
    options: FinetuneOptions | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FinetuneResult:
    """Fit a new classifier on cached features, then train further stages if there are pictures enough.

    Args:
        model: a network with pretrained weights and a classifier for the classes at hand, whatever its weights; changed
            in place where it is flat and answers logits.
        split: training and validation pictures.
        preprocessing: what the network was trained with; by default what its weights brought.
        cache_dir: of features.
        options: what to train, and how.
        on_epoch: called with the metrics of each epoch in which unfrozen stages train.

    Raises:
        UserError: an unknown stage or engine, or an option the network cannot take.
    """
    options = options or FinetuneOptions()
    preprocessing = preprocessing or preprocessing_of(model)
    model = as_classifier(model)
    pictures = Pictures(split, preprocessing, cache_dir, options.views, options.extraction)
    result = FinetuneResult(model, _plan(model, len(split.train), options))
    log.info("%s", result.plan)
    if _is_dense(model):
        # Calibrated even where more follows: a strongly regularised head answers timidly, and unfrozen stages would
        # learn to raise its voice first.
        result = _calibrate(_fit_classifier(result, pictures, options.head), pictures)
    if result.plan.unfreeze_from is None:
        freeze(result.model, stages_of(result.model)[-2])
        return result
    return _calibrate(_train_stages(result, pictures, options.unfrozen, on_epoch), pictures)


def divide_logits(model: "keras.Model", temperature: float) -> None:
    """Scale the layer that gives the logits: a dense one, or a rectified convolution whose maps are averaged."""
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    last.set_weights([weight / temperature for weight in last.get_weights()])


def stitch(model: "keras.Model", head: Head) -> "keras.Model":
    """Put ``head`` in the place of the classifier; where the two differ in number of layers, in a new network."""
    last, features = model.layers[-1], cut_tensor(model)
    if len(head.layers) > 1 or last.input is not features:
        x = features
        for number, (kernel, _) in enumerate(head.layers[:-1], start=1):
            x = keras.layers.Dense(kernel.shape[1], activation="relu", name=f"{HIDDEN}{number}")(x)
        logits = keras.layers.Dense(last.units, dtype="float32", name=last.name)(x)
        model = keras.Model(model.input, logits, name=model.name)
    for layer, weights in zip(model.layers[-len(head.layers) :], head.layers, strict=True):
        layer.set_weights(weights)
    return model


def _is_dense(model: "keras.Model") -> bool:
    return isinstance(model.layers[-1], keras.layers.Dense)


def _plan(model: "keras.Model", num_train: int, options: FinetuneOptions) -> FreezePlan:
    stages = stages_of(model)
    plan = plan_freezing(stages, num_train, options.unfreeze)
    if _is_dense(model):
        return plan
    if options.head.hidden:
        raise UserError(f"{model.name} averages class maps and has no classifier to put hidden layers in front of")
    if plan.unfreeze_from is None:  # its class maps are a convolution's, which trains like any other layer
        return FreezePlan(stages[-1], f"{model.name} averages class maps instead of fitting a dense classifier")
    return plan


def _fit_classifier(result: FinetuneResult, pictures: Pictures, options: HeadOptions) -> FinetuneResult:
    """Fit a head on the plain pictures and one on all their views, and keep what is better on validation."""
    labels, val_labels = (np.asarray(subset.labels) for subset in (pictures.split.train, pictures.split.val))
    with _timed(result, "features"):
        train, val = pictures.features(result.model)

    def fit(views: np.ndarray) -> Head:
        examples = views.reshape(-1, views.shape[-1]), np.tile(labels, len(views))
        num_classes = result.model.output_shape[-1]
        return fit_head(*examples, val.plain, val_labels, num_classes=num_classes, options=options)

    with _timed(result, "head"), step("fitting the classifier"):
        heads = {"classifier on plain pictures": fit(train.values[:1])}
        if pictures.views.count > 1:
            heads[f"classifier on {pictures.views.count} views"] = fit(train.values)
        best = max(heads.values(), key=lambda head: head.val_accuracy)
        log.info("validation accuracy: %.2f %% of %s pictures", 100 * best.val_accuracy, f"{len(val_labels):,}")
        return replace(
            result,
            model=stitch(result.model, best),
            head=best,
            steps=[Step(name, head.val_accuracy, head is best) for name, head in heads.items()],
            val_accuracy=best.val_accuracy,
            val_logits=best.logits(val.plain),
            knn_val_accuracy=knn_accuracy(train.plain, labels, val.plain, val_labels),
            features=(train.plain, val.plain),
            num_computed=train.num_computed + val.num_computed,
            engine=train.engine or val.engine,
        )


def _train_stages(
    result: FinetuneResult,
    pictures: Pictures,
    options: UnfrozenOptions,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> FinetuneResult:
    """Train the plan's stages, and keep what they learn where it is better on validation than the classifier alone."""
    first = result.plan.unfreeze_from
    assert first is not None
    with _timed(result, "unfrozen stages"):
        trained = train_unfrozen(
            result.model, pictures, first, val_logits=result.val_logits, options=options, on_epoch=on_epoch
        )
    improved = trained.best_epoch > 0
    log.info(
        "validation accuracy: %.2f %% after training from %s on%s",
        *(100 * trained.reached, first, "" if improved else ", which is not kept"),
    )
    before = [replace(step, kept=step.kept and not improved) for step in result.steps]
    return replace(
        result,
        steps=[*before, Step(f"training from {first} on", trained.reached, improved)],
        val_accuracy=trained.val_accuracy,
        val_logits=trained.val_logits,
    )


def _calibrate(result: FinetuneResult, pictures: Pictures) -> FinetuneResult:
    """Scale the logits so that validation finds the probabilities right."""
    labels = np.asarray(pictures.split.val.labels)
    assert result.val_logits is not None
    temperature = fit_temperature(result.val_logits, labels)
    divide_logits(result.model, temperature)
    logits = result.val_logits / np.float32(temperature)
    return replace(
        result,
        head=result.head and result.head.scaled(1 / temperature),
        val_logits=logits,
        temperature=temperature,
        reject_below=reject_threshold(softmax(logits), labels),
    )


@contextmanager
def _timed(result: FinetuneResult, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.seconds[name] = time.perf_counter() - start
