"""Fine-tuning from pictures to a calibrated classifier, the frozen part running once per picture, ever."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.split import Split
from toolkit.engines.runtimes import softmax
from toolkit.errors import UserError
from toolkit.factory import preprocessing_of
from toolkit.lazy import keras
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureContext
from toolkit.metrics import fit_temperature, reject_threshold
from toolkit.transfer.features import Extraction, FeatureExtractor, Features, Progress, Views, cached_features
from toolkit.transfer.freeze import HIDDEN, FreezePlan, cut_tensor, freeze, plan_freezing, stages_of
from toolkit.transfer.head import Head, HeadOptions, fit_head
from toolkit.transfer.insight import knn_accuracy
from toolkit.transfer.network import Network, Outline
from toolkit.transfer.unfrozen import Pictures, RestOptions, train_rest

log = logging.getLogger("toolkit")


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune.

    Attributes:
        unfreeze: ``"auto"`` follows the number of pictures, ``"none"`` trains the classifier alone, a stage's name
            trains from that one on.
        views: of each training picture; 1 is the plain picture alone.
        head: solver, class weights, hidden layers.
        rest: epochs and rates of the unfrozen stages.
        extraction: dtype, engine and budgets of the cached features.
    """

    unfreeze: str = "auto"
    views: Views = field(default_factory=Views)
    head: HeadOptions = field(default_factory=HeadOptions)
    rest: RestOptions = field(default_factory=RestOptions)
    extraction: Extraction = field(default_factory=Extraction)


@dataclass(frozen=True)
class Step:
    """What was tried, the validation accuracy it reached, and whether the model is what it left."""

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
        knn_val_accuracy: of the 10 nearest training pictures' vote, which learns nothing: what the features are worth.
        temperature: what the last step's logits were divided by, so that probabilities are calibrated; it is in the
            weights.
        reject_below: refusing less probable answers costs 5 % of the right ones.
        features: of the plain training and validation pictures, for ``toolkit.transfer.insight``.
        num_computed: views that were not in the cache.
        engine: what computed them.
        seconds: by step.
    """

    model: Any
    plan: FreezePlan
    head: Head | None
    steps: list[Step]
    val_accuracy: float
    knn_val_accuracy: float | None
    temperature: float
    reject_below: float
    features: tuple[np.ndarray, np.ndarray] | None
    num_computed: int
    engine: str
    seconds: dict[str, float]

    def as_document(self) -> dict[str, Any]:
        """What there is to tell, JSON-ready."""
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
    model: Any,
    split: Split,
    preprocessing: Preprocessing | None = None,
    *,
    cache_dir: str | Path,
    options: FinetuneOptions | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FinetuneResult:
    """Fit a new classifier on cached features, then train further stages if there are pictures enough.

    Args:
        model: a flat functional classifier with pretrained weights and a classifier for the classes at hand, whatever
            its weights, which is changed in place; or a ``Network``, which may be built later.
        split: training and validation pictures.
        preprocessing: what the network was trained with; a ``Network`` brings its own.
        cache_dir: of features.
        options: what to train, and how.
        progress: called with (done, total) while features are extracted.
        on_epoch: called with the metrics of each epoch in which unfrozen stages train.

    Raises:
        UserError: an unknown stage or engine, or an option the network cannot take.
    """
    options = options or FinetuneOptions()
    network = model if isinstance(model, Network) else _as_network(model, preprocessing)
    clock = _Clock()
    outline = network.outline(cache_dir)
    plan = _plan(outline, split, options)
    log.info("%s", plan)
    fitted = _Fitted()
    if outline.is_dense:
        fitted = _fit(network, outline.context, split, cache_dir, options, progress, clock)
        if plan.unfreeze_from is not None:
            # A strongly regularised head answers timidly, and unfrozen stages would learn to raise its voice first.
            fitted = fitted.calibrated(np.asarray(split.val.labels))
        clock.lap("head")
    if not network.bears_out(outline):
        log.info("%s is no longer built as it was: its features are looked for again", outline.name)
        return finetune(network, split, cache_dir=cache_dir, options=options, progress=progress, on_epoch=on_epoch)
    model = stitch(network.model, fitted.head) if fitted.head else network.model
    clock.lap("network")
    preprocessing = network.preprocessing
    logits, val_accuracy = fitted.val_logits, fitted.val_accuracy
    steps = list(fitted.steps)
    if plan.unfreeze_from is None:
        freeze(model, stages_of(model)[-2])
    else:
        pictures = Pictures(split, preprocessing, cache_dir, options.views, options.extraction)
        trained = train_rest(
            model,
            pictures,
            plan.unfreeze_from,
            val_accuracy=val_accuracy,
            val_loss=fitted.val_loss,
            options=options.rest,
            progress=progress,
            on_epoch=on_epoch,
        )
        improved = trained.best_epoch > 0
        steps = [*(replace(step, kept=step.kept and not improved) for step in steps)]
        steps.append(Step(f"training from {plan.unfreeze_from} on", trained.reached, improved))
        val_accuracy, logits = trained.val_accuracy, trained.val_logits
        clock.lap("unfrozen stages")
    labels = np.asarray(split.val.labels)
    temperature = fit_temperature(logits, labels)
    divide_logits(model, temperature)
    return FinetuneResult(
        model=model,
        plan=plan,
        head=fitted.head and fitted.head.scaled(1 / temperature),
        steps=steps,
        val_accuracy=val_accuracy,
        knn_val_accuracy=fitted.knn_val_accuracy,
        temperature=temperature,
        reject_below=reject_threshold(softmax(logits / temperature), labels),
        features=fitted.features,
        num_computed=fitted.num_computed,
        engine=fitted.engine,
        seconds=clock.seconds,
    )


def divide_logits(model: Any, temperature: float) -> None:
    """Scale the layer that gives the logits: a dense one, or a rectified convolution whose maps are averaged."""
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    last.set_weights([weight / temperature for weight in last.get_weights()])


def stitch(model: Any, head: Head) -> Any:
    """The network with ``head`` for its classifier: itself, or another where the layers of the two differ in number."""
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


@dataclass(frozen=True)
class _Fitted:
    """What the first phase leaves: a head that has converged."""

    head: Head | None = None
    val_accuracy: float = 0.0
    val_loss: float = math.inf
    val_logits: np.ndarray = field(default_factory=lambda: np.empty(0))
    knn_val_accuracy: float | None = None
    steps: tuple[Step, ...] = ()
    features: tuple[np.ndarray, np.ndarray] | None = None
    num_computed: int = 0
    engine: str = ""

    def calibrated(self, val_labels: np.ndarray) -> "_Fitted":
        """With probabilities that mean what they say, and their cross-entropy on validation."""
        if self.head is None:
            return self
        factor = 1 / fit_temperature(self.val_logits, val_labels)
        logits = self.val_logits * np.float32(factor)
        right = softmax(logits)[np.arange(len(val_labels)), val_labels]
        return replace(
            self,
            head=self.head.scaled(factor),
            val_logits=logits,
            val_loss=-float(np.log(np.maximum(right, 1e-30)).mean()),
        )


def _as_network(model: Any, preprocessing: Preprocessing | None) -> Network:
    parts = model, preprocessing or preprocessing_of(model)
    return Network(lambda: parts, num_classes=model.output_shape[-1])


def _plan(network: Outline, split: Split, options: FinetuneOptions) -> FreezePlan:
    stages = network.stages
    plan = plan_freezing(stages, len(split.train), options.unfreeze)
    if network.is_dense:
        return plan
    if options.head.hidden:
        raise UserError(f"{network.name} averages class maps and has no classifier to put hidden layers in front of")
    if plan.unfreeze_from is None:  # its class maps are a convolution's, which trains like any other layer
        return FreezePlan(stages[-1], f"{network.name} averages class maps instead of fitting a dense classifier")
    return plan


def _features(
    network: Network,
    context: FeatureContext | None,
    split: Split,
    cache_dir: str | Path,
    options: FinetuneOptions,
    progress: Progress | None,
) -> tuple[Features, Features]:
    """Pooled features of the training and the validation pictures; the network is built if any are missing.

    Args:
        context: of the features, where it is known without the network.
    """
    how = replace(options.extraction, stage=None)
    if context:
        context = replace(context, dtype=how.dtype)
        train = cached_features(context, split.train.paths, cache_dir=cache_dir, views=options.views, how=how)
        val = cached_features(context, split.val.paths, cache_dir=cache_dir, how=how)
        if train and val:
            return train, val
    with FeatureExtractor(network.model, network.preprocessing, cache_dir=cache_dir, how=how) as extractor:
        network.remember(cache_dir, extractor.context)
        train = extractor.extract(split.train.paths, views=options.views, progress=progress)
        return train, extractor.extract(split.val.paths, progress=progress)


def _fit(
    network: Network,
    context: FeatureContext | None,
    split: Split,
    cache_dir: str | Path,
    options: FinetuneOptions,
    progress: Progress | None,
    clock: "_Clock",
) -> _Fitted:
    """The head on pooled features: on the plain pictures, on all views, whichever is better on validation."""
    train, val = _features(network, context, split, cache_dir, options, progress)
    clock.lap("features")
    labels, val_labels = np.asarray(split.train.labels), np.asarray(split.val.labels)
    candidates = []
    for count in sorted({1, options.views.count}):
        views = train.values[:count].reshape(-1, train.values.shape[-1])
        candidates.append(
            fit_head(
                views,
                np.tile(labels, count),
                val.plain,
                val_labels,
                num_classes=network.num_classes,
                options=options.head,
            )
        )
    best = max(candidates, key=lambda head: head.val_accuracy)
    names = ["classifier on plain pictures", f"classifier on {options.views.count} views"]
    return _Fitted(
        head=best,
        val_accuracy=best.val_accuracy,
        val_logits=best.logits(val.plain),
        knn_val_accuracy=knn_accuracy(train.plain, split.train.labels, val.plain, split.val.labels),
        steps=tuple(Step(name, head.val_accuracy, head is best) for name, head in zip(names, candidates, strict=False)),
        features=(train.plain, val.plain),
        num_computed=train.num_computed + val.num_computed,
        engine=train.engine or val.engine,
    )


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now
