"""Deeper training against the classifier on frozen features: what answers better pictures that neither saw is kept."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.split import Split, Subset
from toolkit.metrics import fit_temperature, softmax, standard_error, top_k_accuracy
from toolkit.transfer.features import Pictures
from toolkit.transfer.freeze import FreezePlan, stages_of
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds, judging_pictures
from toolkit.transfer.heads.head import HeadOptions
from toolkit.transfer.heads.selection import Selection, SelectionOptions, select_head
from toolkit.transfer.stages import pooled_cuts, stitch
from toolkit.transfer.unfrozen.budget import FORWARD, MIN_EPOCHS, Schedule, Work, in_words, what_fits
from toolkit.transfer.unfrozen.training import StageTraining, UnfrozenOptions

if TYPE_CHECKING:
    from toolkit.lazy import keras

log = logging.getLogger("toolkit")

#: Standard errors of the difference in log loss by which deeper training must be better if it gets no more right.
MARGIN = 1.0

OnEpoch = Callable[[dict[str, Any]], None] | None


@dataclass(frozen=True)
class Frozen:
    """A network whose classifier was fitted on frozen features: where deeper training starts, and what it must beat.

    Attributes:
        model: the network as it came, its own classifier in place.
        pictures: the split's validation pictures judge; where there are none, a fold of the training pictures.
        lots: of the training pictures, which no fold divides.
        head: the options that the classifier was fitted with.
        features: of the training pictures, by cut, (views, pictures, width).
        selection: the classifier; None for a network whose own one has to be trained, so that any training is better.
    """

    model: "keras.Model"
    pictures: Pictures
    lots: np.ndarray
    head: HeadOptions
    features: Mapping[str, np.ndarray]
    selection: Selection | None


@dataclass(frozen=True)
class Wish:
    """The deeper training that is wanted.

    Attributes:
        plan: the first stage to train; where it names none, as much trains as there is time for.
        options: of the training; its epochs are the most there may be.
        deadline: of ``time.monotonic()``, when it must be over.
    """

    plan: FreezePlan
    options: UnfrozenOptions
    deadline: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """The end of a contest.

    Attributes:
        plan: what was tried, or why nothing was.
        model: the trained network; None where the classifier on frozen features won.
        split: the pictures that taught it, and those that did not.
        judged: the pictures that judged; none where every class has one picture or lot.
        lots: number of each of their lots, whose pictures are right or wrong together.
        logits: of them, by the trained network that had not seen them, float32 (pictures, classes); None where nothing
            was trained to its end.
        again: whether all pictures taught it in the end, those that judged among them.
    """

    plan: FreezePlan
    model: "keras.Model | None"
    split: Split
    judged: Subset
    lots: np.ndarray
    logits: np.ndarray | None
    again: bool = False

    @property
    def accuracy(self) -> float | None:
        """Of the trained network on the pictures that judged, a fraction."""
        return None if self.logits is None else top_k_accuracy(self.logits, np.asarray(self.judged.labels), 1)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over lots, see ``metrics.standard_error``."""
        assert self.logits is not None
        return standard_error(self.logits.argmax(axis=1) == np.asarray(self.judged.labels), self.lots)


class Contest:
    """Trains stages, and judges them and the classifier on frozen features on pictures that neither saw.

    The training starts from a linear classifier of the last features, fitted without the pictures that judge (Kumar et
    al., Fine-Tuning can Distort Pretrained Features, ICLR 2022). A training that wins is repeated on all pictures, if a
    fold of them was held out and there is time.

    Args:
        frozen: the classifier to beat.
        wish: stages, epochs, time.
        on_epoch: called with the metrics after each epoch.
    """

    def __init__(self, frozen: Frozen, wish: Wish, on_epoch: OnEpoch = None) -> None:
        self._frozen = frozen
        self._wish = wish
        self._on_epoch = on_epoch
        self._taught, split, lots = _held_out(frozen.pictures.split, frozen.lots)
        self._pictures = replace(frozen.pictures, split=split)
        self._before = frozen.model.get_weights()
        self._best = Outcome(wish.plan, None, split, split.val, lots, None)
        self._weights: list[np.ndarray] = []  # of the best outcome's model

    def run(self) -> Outcome:
        """Hold it; Ctrl+C ends the contest and not the command, what was best until then being kept."""
        try:
            self._run()
        except KeyboardInterrupt:
            if self._frozen.selection is None:  # there is nothing yet to keep
                raise
            log.warning("interrupted: the best classifier so far is kept; Ctrl+C again ends the command")
        # Every network here shares its layers with the one that came.
        self._frozen.model.set_weights(self._before)
        if self._best.model is not None:
            self._best.model.set_weights(self._weights)
        return self._best

    def _run(self) -> None:
        reference = self._reference()
        plan, model, training, schedule = self._planned()
        self._best = replace(self._best, plan=plan)
        log.info("%s", plan)
        if training is None:
            return
        split = self._pictures.split
        if not len(split.val):  # all pictures teach already, and nobody can judge
            training.train(schedule.epochs, deadline=schedule.deadline, on_epoch=self._on_epoch)
            return self._keep(model)
        training.train(schedule.epochs, deadline=schedule.judged_by, on_epoch=self._on_epoch)
        logits, labels = training.logits(split.val), np.asarray(split.val.labels)
        is_better = reference is None or _is_better(logits, reference, labels, self._best.lots)
        self._best = replace(self._best, logits=logits)
        _tell(plan, logits, reference, labels, is_better)
        if not is_better:
            return
        self._keep(model)
        if schedule.again:
            self._train_again(schedule)

    def _keep(self, model: "keras.Model", **changes: Any) -> None:
        self._best = replace(self._best, model=model, **changes)
        self._weights = model.get_weights()

    def _train_again(self, schedule: Schedule) -> None:
        """Train on all pictures what won on a part of them."""
        frozen, best = self._frozen, self._best
        assert best.plan.unfreeze_from is not None
        assert best.accuracy is not None
        frozen.model.set_weights(self._before)
        model = self._start(np.arange(len(frozen.pictures.split.train)))
        training = StageTraining(model, frozen.pictures, best.plan.unfreeze_from, self._wish.options)
        training.train(schedule.epochs, deadline=schedule.deadline, on_epoch=self._on_epoch)
        accuracy = top_k_accuracy(training.logits(best.judged), np.asarray(best.judged.labels), 1)
        if accuracy < best.accuracy:  # on pictures that it has seen now: this training did not come as far
            log.info("training on all pictures ended early, so those held out do not teach")
            return
        log.info("trained again on all %s pictures", f"{len(frozen.pictures.split.train):,}")
        self._keep(model, split=frozen.pictures.split, again=True)

    def _start(self, taught: np.ndarray) -> "keras.Model":
        """Put the classifier to start from in place, fitted on these of the training pictures.

        It reads the last features alone: what reads several stages answers better, and was tried as a start and lost.
        """
        frozen, model = self._frozen, self._frozen.model
        if frozen.selection is None:
            return model
        last = pooled_cuts(model)[-1].name
        selection = select_head(
            {last: frozen.features[last][:, taught]},
            np.asarray(frozen.pictures.split.train.labels)[taught],
            num_classes=model.output_shape[-1],
            options=SelectionOptions(frozen.head, frozen.lots[taught]),
        )
        return stitch(model, selection.features, selection.head)

    def _reference(self) -> np.ndarray | None:
        """Logits of the chosen classifier for the pictures that judge, which it has not seen either."""
        frozen, val = self._frozen, self._pictures.split.val
        if frozen.selection is None:
            return None
        if self._pictures.split is not frozen.pictures.split:
            return np.delete(frozen.selection.logits, self._taught, axis=0)
        with self._pictures.extractor(frozen.model, pooled_cuts(frozen.model)) as extractor:
            found = {name: own.plain for name, own in extractor.extract_cuts(val.paths).items()}
        return frozen.selection.head.logits(frozen.selection.features.join(found))

    def _planned(self) -> tuple[FreezePlan, "keras.Model", StageTraining | None, Schedule]:
        """Choose stages and epochs: of what there is time for, the most stages."""
        wish, split = self._wish, self._pictures.split
        num_train = len(self._frozen.pictures.split.train)
        is_fold = split is not self._frozen.pictures.split
        model = self._start(self._taught)
        if wish.deadline == math.inf:
            assert wish.plan.unfreeze_from is not None
            training = StageTraining(model, self._pictures, wish.plan.unfreeze_from, wish.options)
            return wish.plan, model, training, Schedule(wish.options.epochs, is_fold)
        *body, _ = stages_of(model)
        most, size = wish.options.epochs, wish.options.batch_size
        nothing = Schedule(0, False)
        reason = "no time is left"
        for first in [wish.plan.unfreeze_from] if wish.plan.unfreeze_from else _starts(body):
            if time.monotonic() >= wish.deadline:
                break
            training = StageTraining(model, self._pictures, first, wish.options)
            took = training.measure()
            work = Work(len(training), -(-len(split.val) // size), -(-num_train // size) if is_fold else 0)
            left = max(0.0, wish.deadline - time.monotonic())
            schedule = what_fits(left, work, took, most)
            each = in_words(took.step * len(training))
            if schedule.epochs >= min(MIN_EPOCHS, most):
                also = f", and if that is better as many on all {num_train:,}" if schedule.again else ""
                told = (
                    f"{schedule.epochs} epochs of {len(split.train):,} pictures, {each} each, "
                    f"judged by {len(split.val):,} others{also}; {in_words(left)} are left"
                )
                return FreezePlan(first, told), model, training, schedule
            reason = f"an epoch takes {each}, and {in_words(left)} are left"
            if took.step * FORWARD * num_train / size > left / 2:  # to compute what the later stages would start from
                break
        return FreezePlan(None, reason), model, None, nothing


def _starts(body: list[str]) -> list[str]:
    """Stages to train from: the first, one half way, the last.

    >>> _starts(["stage1", "stage2", "stage3", "stage4"])
    ['stage1', 'stage3', 'stage4']
    """
    return list(dict.fromkeys([body[0], body[len(body) // 2], body[-1]]))


def _held_out(split: Split, lots: np.ndarray) -> tuple[np.ndarray, Split, np.ndarray]:
    """Give the pictures that go on teaching, a split whose validation is the others, a fold, if it has none, its lots.

    Where every class has one picture or one lot, the validation stays empty.
    """
    if len(split.val):
        return np.arange(len(split.train)), split, np.arange(len(split.val))
    labels = np.asarray(split.train.labels)
    is_held_out = judging_pictures(labels, assign_folds(labels, lots, num_folds=NUM_FOLDS))
    taught, held_out = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    return taught, Split(split.train.picked(taught), split.train.picked(held_out), split.test), lots[held_out]


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each picture, at the temperature that suits them all best."""
    probabilities = softmax(logits / np.float32(fit_temperature(logits, labels)))
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))


def _is_better(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray, lots: np.ndarray) -> bool:
    """Tell whether neither accuracy nor log loss is worse, and one of them is better, the latter beyond chance.

    Pictures of one lot count as one: they are better or worse together.
    """
    ours, theirs = (top_k_accuracy(own, labels, 1) for own in (logits, reference))
    gain = _losses(reference, labels) - _losses(logits, labels)
    if ours < theirs or gain.mean() <= 0:
        return False
    of_lots = np.bincount(np.unique(lots, return_inverse=True)[1], weights=gain - gain.mean())
    return ours > theirs or bool(gain.sum() > MARGIN * math.sqrt(float(np.square(of_lots).sum())))


def _tell(
    plan: FreezePlan, logits: np.ndarray, reference: np.ndarray | None, labels: np.ndarray, is_better: bool
) -> None:
    def figures(answers: np.ndarray) -> tuple[float, float]:
        return 100 * top_k_accuracy(answers, labels, 1), float(_losses(answers, labels).mean())

    beside = ""
    if reference is not None:
        beside = "; the classifier alone has {:.2f} %, log loss {:.3f}".format(*figures(reference))
        beside += "" if is_better else ", and is kept"
    log.info(
        "validation accuracy: %.2f %%, log loss %.3f, of %s pictures after training from %s on%s",
        *figures(logits),
        f"{len(labels):,}",
        plan.unfreeze_from,
        beside,
    )
