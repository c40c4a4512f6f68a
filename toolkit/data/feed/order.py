"""The order of training pictures: a function of the seed and the epoch's number, and of nothing that runs."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plan:
    """A run of training examples, a batch or an epoch, before any picture was read: int64 indices of the pictures.

    Their ``positions`` in the epoch and not the pictures decide augmentation, for a balanced epoch may show one twice.
    """

    epoch: int  # counted from 0
    positions: np.ndarray
    examples: np.ndarray


def epoch_order(labels: Sequence[int], *, seed: int, epoch: int, balanced: bool = False) -> np.ndarray:
    """Indices of the pictures of one epoch, int64, as many as there are labels: each picture once.

    Balanced, every class is shown equally often and, over the epochs, each picture of a class as often as any other.
    """
    rng = _generator(seed, epoch)
    if not balanced:
        return rng.permutation(len(labels))
    return rng.permutation(_balanced_draws(np.asarray(labels), seed, epoch))


def epoch_plan(
    labels: Sequence[int], *, seed: int, epoch: int, first_position: int = 0, balanced: bool = False
) -> Plan:
    """One epoch of training, from a place in it on."""
    examples = epoch_order(labels, seed=seed, epoch=epoch, balanced=balanced)[first_position:]
    return Plan(epoch, np.arange(first_position, first_position + len(examples)), examples)


def epoch_plans(
    labels: Sequence[int], *, seed: int, first_epoch: int = 0, first_position: int = 0, balanced: bool = False
) -> Iterator[Plan]:
    """The endless epochs of training; ``first_position`` is where in the first of them to go on from."""
    for epoch in itertools.count(first_epoch):
        plan = epoch_plan(labels, seed=seed, epoch=epoch, first_position=first_position, balanced=balanced)
        if len(plan.examples):
            yield plan
        first_position = 0


def batch_plans(epochs: Iterable[Plan], batch_size: int) -> Iterator[Plan]:
    """Each epoch in batches; its last one holds what is left over."""
    for plan in epochs:
        for start in range(0, len(plan.examples), batch_size):
            part = slice(start, start + batch_size)
            yield Plan(plan.epoch, plan.positions[part], plan.examples[part])


def _balanced_draws(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Draw number d of all epochs goes to the class d modulo the number of classes; each class goes round and round
    through permutations of its pictures."""
    classes, counts = np.unique(labels, return_counts=True)
    draws = np.arange(epoch * len(labels), (epoch + 1) * len(labels))
    chosen = np.empty(len(labels), np.int64)
    for place, (label, count) in enumerate(zip(classes, counts, strict=True)):
        own = np.flatnonzero(draws % len(classes) == place)
        rounds, offsets = np.divmod(draws[own] // len(classes), count)
        members = np.flatnonzero(labels == label)
        for number in np.unique(rounds):
            permuted = members[_generator(seed, int(number), 1 + int(label)).permutation(count)]
            chosen[own[rounds == number]] = permuted[offsets[rounds == number]]
    return chosen


def _generator(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([seed % 2**64, *numbers])
