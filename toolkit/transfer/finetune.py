"""Fine-tuning from pictures to a calibrated classifier, the frozen part running once per picture, ever."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.feed.split import Split, Subset
from toolkit.errors import UserError
from toolkit.factory import preprocessing_of
from toolkit.lazy import keras
from toolkit.metrics import accuracy_report, fit_temperature, reject_threshold, softmax
from toolkit.network import as_classifier
from toolkit.spec import Preprocessing
from toolkit.transfer.features import Extraction, Pictures
from toolkit.transfer.freeze import FreezePlan, freeze, plan_freezing, stages_of
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds
from toolkit.transfer.heads.head import Head, HeadOptions
from toolkit.transfer.heads.novelty import Novelty, fit_novelty
from toolkit.transfer.heads.selection import Selection, SelectionOptions, select_head
from toolkit.transfer.insight import knn_accuracy
from toolkit.transfer.stages import pooled_cuts, stitch
from toolkit.transfer.unfrozen.contest import Contest, Frozen, Wish
from toolkit.transfer.unfrozen.training import UnfrozenOptions

log = logging.getLogger("toolkit")

_NUM_MEANS = 2000  # training pictures that class means are taken from where stages were trained
_UNEVEN = 1.5  # times the pictures of the smallest class from which the largest makes classes uneven


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
        curve: also measure accuracy by number of pictures.
        deadline: of ``time.monotonic()``, when training stages must be over. With one, ``"auto"`` follows the time: the
            whole network trains if there is enough for it, and nothing if there is little or nothing to gain.
    """

    unfreeze: str = "auto"
    views: AugmentedViews = field(default_factory=AugmentedViews)
    head: HeadOptions = field(default_factory=HeadOptions)
    unfrozen: UnfrozenOptions = field(default_factory=UnfrozenOptions)
    extraction: Extraction = field(default_factory=Extraction)
    curve: bool = False
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.deadline is not None and self.unfreeze == "none":
            raise UserError("a time budget is for training stages, and unfreezing none trains none; leave one out")


@dataclass(frozen=True)
class Step:
    """A step of fine-tuning, the accuracy it reached, and whether the model is what it left.

    ``subset`` says on which pictures: ``"out-of-fold"``, on each by a classifier that did not see it, ``"held-out
    fold"``, on a part that did not teach at first, or ``"val"``.
    ``accuracy`` is None where there are too few pictures to tell.
    """

    name: str
    accuracy: float | None
    subset: str
    kept: bool


@dataclass(frozen=True)
class Judged:
    """Answers for pictures that the classifier giving them did not see.

    Attributes:
        name: ``"out-of-fold"`` or ``"val"``.
        subset: the pictures.
        logits: calibrated, float32 (pictures, classes).
        standard_error: of the accuracy, a fraction; None where it was not computed.
    """

    name: str
    subset: Subset
    logits: np.ndarray
    standard_error: float | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """Of each class, float32 (pictures, classes)."""
        return softmax(self.logits)

    def report(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Give the figures of ``accuracy_report`` and the standard error; empty where no picture was judged."""
        if not len(self.subset):
            return {}
        figures = accuracy_report(self.logits, np.asarray(self.subset.labels), class_names)
        return figures | ({} if self.standard_error is None else {"standard_error": self.standard_error})


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned classifier and how it came about.

    Attributes:
        model: the flat network, head and all: the one given, or one of more layers where the classifier needs them.
        plan: what stayed frozen and why.
        split: the pictures that taught the model, and those held out from it.
        given: the training pictures as they were given, of which ``split`` may hold some out.
        selection: how the classifier was chosen; None for a network without a dense classifier.
        head: the classifier in the model; None as above, or where stages behind it were trained too.
        steps: accuracy after each step, in order.
        judged: answers for pictures that did not teach what answers.
        knn_accuracy: out of fold, of the 10 nearest pictures' vote, which learns nothing: what the features are worth.
        temperature: the divisor of the logits that makes probabilities calibrated; it is in the weights.
        reject_below: refusing less probable answers costs 5 % of the right ones.
        novelty: tells pictures of none of the classes; None where none could be fitted.
        features: pooled, of the plain training pictures as they were given, for ``toolkit.transfer.insight``.
        num_computed: views that were not in the cache.
        engine: what computed them.
        seconds: by step.
        again: whether stages were trained again on all pictures, after a part of them had judged the training.
    """

    model: "keras.Model"
    plan: FreezePlan
    split: Split
    judged: Judged
    given: Subset
    selection: Selection | None = None
    head: Head | None = None
    steps: list[Step] = field(default_factory=list)
    knn_accuracy: float | None = None
    temperature: float = 1.0
    reject_below: float = 0.0
    novelty: Novelty | None = None
    features: np.ndarray | None = None
    num_computed: int = 0
    engine: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    again: bool = False

    @property
    def accuracy(self) -> float | None:
        """Of the model on pictures it did not see, a fraction; None where there are too few to tell."""
        return next((step.accuracy for step in self.steps if step.kept), None)

    def as_document(self) -> dict[str, Any]:
        """Describe how the classifier came about, JSON-ready."""
        return {
            "plan": str(self.plan),
            "steps": [asdict(step) for step in self.steps],
            "selection": self.selection and self.selection.as_document(),
            "knn_accuracy": self.knn_accuracy,
            "temperature": self.temperature,
            "reject_below": self.reject_below,
            "novelty": self.novelty and {"num_judged": self.novelty.num_judged, "refused": self.novelty.refused},
            "num_computed": self.num_computed,
            "engine": self.engine,
            "seconds": self.seconds,
            "trained_again_on_all": self.again,
        }


def finetune(
    model: "keras.Model",
    split: Split,
    preprocessing: Preprocessing | None = None,
    *,
    cache_dir: str | Path,
    lots: np.ndarray | None = None,
    options: FinetuneOptions | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FinetuneResult:
    """Fit a new classifier on cached features, then train further stages if there are pictures enough.

    The classifier is chosen by cross-validation on the training pictures and fitted on all of them. Training of stages
    starts from it and is kept if it answers the validation pictures better or, where there are none, a fold that did
    not teach; all pictures teach in the end.

    Args:
        model: a network with pretrained weights and a classifier for the classes at hand, whatever its weights; changed
            in place where it is flat and answers logits.
        split: training and validation pictures; the latter may be empty.
        preprocessing: what the network was trained with; by default what its weights brought.
        cache_dir: of features.
        lots: number of each training picture's lot, whose pictures no fold divides; by default each is its own.
        options: what to train, and how.
        on_epoch: called with the metrics of each epoch in which unfrozen stages train.

    Raises:
        UserError: an unknown stage or engine, or an option the network cannot take.
    """
    options = options or FinetuneOptions()
    preprocessing = preprocessing or preprocessing_of(model)
    model = as_classifier(model)
    lots = np.arange(len(split.train)) if lots is None else np.asarray(lots)
    pictures = Pictures(split, preprocessing, cache_dir, options.views, options.extraction)
    nobody = Judged("out-of-fold", Subset((), ()), np.empty((0, model.output_shape[-1]), np.float32))
    result = FinetuneResult(model, _plan(model, len(split.train), options), split, nobody, split.train)
    frozen = Frozen(model, pictures, lots, options.head, {}, None)
    if not _is_dense(model):
        log.info("%s", result.plan)
        return _compete(result, frozen, options, on_epoch)
    if options.deadline is None:
        log.info("%s", result.plan)
    features = _extract(result, pictures)
    result = _fit_classifier(result, features, SelectionOptions(options.head, lots, curve=options.curve))
    if result.plan.unfreeze_from is None and options.deadline is None:
        return _with_classifier(result)
    hindrance = _hindrance(result, options)
    if hindrance:
        result = replace(result, plan=FreezePlan(None, hindrance))
        log.info("%s", result.plan)
        return _with_classifier(result)
    return _compete(result, replace(frozen, features=features.values, selection=result.selection), options, on_epoch)


def calibrate(model: "keras.Model", logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scale a network's logits such that its probabilities are right for pictures it was not fitted on.

    Args:
        model: ends in a dense layer, or in a rectified convolution whose maps are averaged; its weights are changed.
        logits: (pictures, classes), that it gave for them until now.
        labels: integer class per picture.

    Returns:
        What the logits are divided by, and the probability under which an answer may be refused.
    """
    temperature = fit_temperature(logits, labels)
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    last.set_weights([weight / temperature for weight in last.get_weights()])
    return temperature, reject_threshold(softmax(logits / np.float32(temperature)), labels)


def _is_dense(model: "keras.Model") -> bool:
    return isinstance(model.layers[-1], keras.layers.Dense)


def _plan(model: "keras.Model", num_train: int, options: FinetuneOptions) -> FreezePlan:
    stages = stages_of(model)
    plan = plan_freezing(stages, num_train, options.unfreeze)
    if _is_dense(model):
        is_free = options.unfreeze == "auto" and options.deadline is not None
        return FreezePlan(None, "as far as the time goes") if is_free else plan
    if options.head.hidden:
        raise UserError(f"{model.name} averages class maps and has no classifier to put hidden layers in front of")
    if options.deadline is not None:
        raise UserError(
            f"{model.name} averages class maps, and its last convolution has to train, however long that takes; "
            "leave the time budget out, and say how many epochs"
        )
    if plan.unfreeze_from is None:  # its class maps are a convolution's, which trains like any other layer
        return FreezePlan(stages[-1], f"{model.name} averages class maps instead of fitting a dense classifier")
    return plan


@dataclass(frozen=True)
class _Extracted:
    """Features of the training pictures by cut, (views, pictures, width), and how they were come by."""

    values: dict[str, np.ndarray]
    num_computed: int
    engine: str

    @property
    def last(self) -> str:
        """The cut before the classifier."""
        return list(self.values)[-1]


def _extract(result: FinetuneResult, pictures: Pictures) -> _Extracted:
    """Extract the features of all cuts of the training pictures, in one pass."""
    with _timed(result, "features"), pictures.extractor(result.model, pooled_cuts(result.model)) as extractor:
        found = extractor.extract_cuts(pictures.split.train.paths, views=pictures.views)
    values = {name: features.values for name, features in found.items()}
    num_computed = max(features.num_computed for features in found.values())
    return _Extracted(values, num_computed, next((own.engine for own in found.values() if own.engine), ""))


def _fit_classifier(result: FinetuneResult, features: _Extracted, options: SelectionOptions) -> FinetuneResult:
    """Choose a classifier by cross-validation, fitted on every training picture."""
    train = result.split.train
    num_classes = result.model.output_shape[-1]
    with _timed(result, "head"):
        selection = select_head(features.values, train.labels, num_classes=num_classes, options=options)
        plain = features.values[features.last][0]
        novelty = fit_novelty(plain, np.asarray(train.labels), num_classes, lots=options.lots)
    for remark in selection.remarks:
        log.info(remark)
    if selection.accuracy is not None:
        log.info(
            "out-of-fold accuracy: %.2f ± %.2f %% of %s pictures%s (%s)",
            100 * selection.accuracy,
            100 * (selection.standard_error or 0),
            f"{int(selection.judged.sum()):,}",
            _beside_plain(selection, np.asarray(train.labels)),
            selection.chosen,
        )
    indices = np.flatnonzero(selection.judged)
    judged = Judged("out-of-fold", train.picked(indices), selection.logits[indices], selection.standard_error)
    return replace(
        result,
        selection=selection,
        head=selection.head,
        steps=[Step(f"classifier on {selection.chosen}", selection.accuracy, "out-of-fold", True)],
        judged=judged,
        knn_accuracy=_knn_accuracy(plain, np.asarray(train.labels), options.lots, selection.judged),
        temperature=selection.temperature,
        reject_below=selection.reject_below,
        novelty=novelty,
        features=plain,
        num_computed=features.num_computed,
        engine=features.engine,
    )


def _beside_plain(selection: Selection, labels: np.ndarray) -> str:
    """Give the balanced accuracy where classes are of different sizes, so that the plain one hears the large ones."""
    counts = np.bincount(labels)
    if selection.balanced_accuracy is None or counts.max() < _UNEVEN * counts.min():
        return ""
    return f"; {100 * selection.balanced_accuracy:.2f} % where every class counts alike"


def _with_classifier(result: FinetuneResult) -> FinetuneResult:
    """Put the chosen classifier on the network and freeze the rest."""
    selection = result.selection
    assert selection is not None
    model = stitch(result.model, selection.features, selection.head)
    freeze(model, stages_of(model)[-2])
    return replace(result, model=model)


def _hindrance(result: FinetuneResult, options: FinetuneOptions) -> str:
    """Say why training stages is not worth a try, if it is not."""
    assert result.selection is not None
    judged = int(result.selection.judged.sum())
    if not judged:
        return "there are too few pictures to judge by"
    wrong = round(judged * (1 - (result.selection.accuracy or 0.0)))
    if options.unfreeze == "auto" and wrong < NUM_FOLDS:
        return f"out of fold {wrong} of {judged:,} pictures are wrong, too few to tell if more training helps"
    return ""


def _knn_accuracy(
    features: np.ndarray, labels: np.ndarray, lots: np.ndarray | None, judged: np.ndarray
) -> float | None:
    if not judged.any():
        return None
    folds = assign_folds(labels, lots)
    right = 0.0
    for fold in range(NUM_FOLDS):
        own = judged & (folds == fold)
        if own.any():
            taught = folds != fold
            right += own.sum() * knn_accuracy(features[taught], labels[taught], features[own], labels[own])
    return right / float(judged.sum())


def _compete(
    result: FinetuneResult, frozen: Frozen, options: FinetuneOptions, on_epoch: Callable[[dict[str, Any]], None] | None
) -> FinetuneResult:
    """Train the plan's stages, or those that there is time for, and keep them where they beat the chosen classifier."""
    wish = Wish(result.plan, options.unfrozen, math.inf if options.deadline is None else options.deadline)
    with _timed(result, "unfrozen stages"):
        outcome = Contest(frozen, wish, on_epoch).run()
    result = replace(result, plan=outcome.plan)
    name = f"training from {outcome.plan.unfreeze_from} on"
    is_fold = not len(result.split.val)
    if outcome.accuracy is None:
        if outcome.model is None:
            return _with_classifier(result)
        log.info("there are too few pictures to judge what was trained: a class has one, or one lot of look-alikes")
        return replace(result, model=outcome.model, steps=[Step(name, None, "held-out fold", True)])
    is_kept = outcome.model is not None
    step = Step(name, outcome.accuracy, "held-out fold" if is_fold else "val", is_kept)
    steps = [*(replace(own, kept=own.kept and not is_kept) for own in result.steps), step]
    if outcome.model is None:
        return _with_classifier(replace(result, steps=steps))
    assert outcome.logits is not None
    labels = np.asarray(outcome.judged.labels)
    temperature, reject_below = calibrate(outcome.model, outcome.logits, labels)
    logits = outcome.logits / np.float32(temperature)
    # Pictures that the network was trained on lie nearer to their class means than others: they can't set a threshold.
    pictures = replace(frozen.pictures, split=outcome.split)
    novelty = None if outcome.again else _novelty_of(outcome.model, pictures)
    return replace(
        result,
        model=outcome.model,
        split=outcome.split,
        judged=Judged("out-of-fold" if outcome.again else "val", outcome.judged, logits, outcome.standard_error),
        head=None,
        steps=steps,
        temperature=temperature,
        reject_below=reject_below,
        novelty=novelty,
        again=outcome.again,
    )


def _novelty_of(model: "keras.Model", pictures: Pictures) -> Novelty | None:
    """Fit novelty on a network whose stages have seen the training pictures: validation pictures judge."""
    if not _is_dense(model):
        return None
    split = pictures.split
    stride = max(1, len(split.train) // _NUM_MEANS)
    train = split.train.picked(np.arange(0, len(split.train), stride))
    labels = np.asarray(train.labels)
    if len(np.unique(labels)) < model.output_shape[-1]:
        train, labels = split.train, np.asarray(split.train.labels)
    cut = pooled_cuts(model)[-1]
    with pictures.extractor(model, (cut,)) as extractor:
        taught, judging = (extractor.extract_cuts(subset.paths)[cut.name].plain for subset in (train, split.val))
    return fit_novelty(taught, labels, model.output_shape[-1], held_out=judging)


@contextmanager
def _timed(result: FinetuneResult, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.seconds[name] = time.perf_counter() - start
