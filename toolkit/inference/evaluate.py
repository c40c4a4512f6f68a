"""A bundle's accuracy on a folder of pictures, by default on those that it did not learn from."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.bundle import Pictures, join_pictures, picture_digests, read_pictures
from toolkit.data import ImageFolder, scan_folder
from toolkit.errors import UserError, unknown_name
from toolkit.inference.predictor import Answer, Predictor
from toolkit.metrics import accuracy_report, standard_error
from toolkit.progress import step

#: Parts of a folder that can be asked for.
SUBSETS = ("train", "val", "test", "all")

_NUM_CONFUSIONS = 5


def evaluate_bundle(
    predictor: Predictor,
    data: str | os.PathLike[str] | ImageFolder,
    *,
    subset: str | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Evaluate on the readable pictures of a folder whose class folders are among the bundle's labels.

    Args:
        predictor: what answers.
        data: a folder or another data set, see ``toolkit.data.scan_folder``.
        subset: ``"train"``, ``"val"`` or ``"test"``: the folder's own, or where it does not come split, the pictures
            that the bundle has noted as such; or ``"all"``. By default the folder's test pictures, else its validation
            pictures, else those that the bundle did not learn from, else all.
        skip_bad: leave unreadable pictures out instead of refusing the folder.

    Returns:
        ``{"top1", "top5", "n", "num_classes", "per_class", "engine", "skipped"}``, fractions in 0…1; what pictures
        these are: ``"subset"``, one of the above or ``"unseen"`` for such as the bundle did not learn from,
        ``"taught"`` and ``"chose"``, how many of them taught the bundle and chose among its settings, ``None`` where
        that is not known, and ``"pictures"``, the same in words; ``"confusions"``, the most frequent errors as
        ``[class, answer, pictures]``. Where the pictures have groups, ``"standard_error"`` of ``"top1"``, pictures of a
        group being right or wrong together. Where the bundle tells "none of these" also ``{"reject_below",
        "novelty_above", "rejected", "top1_answered"}``: the thresholds that it has, the share of pictures refused by
        them, and the accuracy on the others, ``None`` if there are none.

    Raises:
        UserError: a class folder is not one of the labels, there is no such subset, or pictures are unreadable and
            ``skip_bad`` is false.
    """
    if subset not in (None, *SUBSETS):
        raise UserError(unknown_name("subset", str(subset), list(SUBSETS)))
    folder = data if isinstance(data, ImageFolder) else scan_folder(data, class_names=predictor.labels)
    if not skip_bad:
        folder.require_clean()
    if folder is not data:  # else whoever scanned it has told
        folder.tell_left_out()
    known = join_pictures([read_pictures(*bundle) for bundle in predictor.bundles])
    chosen = _choose(folder, known, subset)
    paths = [folder.root / folder.paths[index] for index in chosen.indices]
    answers: list[Answer] = []
    with step("evaluating", len(paths)) as told:
        for answer in predictor.answers(paths):
            answers.append(answer)
            told(len(answers))
    probabilities = np.stack([answer.probabilities for answer in answers])
    labels = np.asarray(folder.labels)[chosen.indices]
    report = accuracy_report(probabilities, labels, predictor.labels)
    if folder.groups:  # whose pictures are right or wrong together
        groups = [(folder.groups[index], index) for index in chosen.indices]
        lots = np.asarray([f"group {name}" if name else f"picture {index}" for name, index in groups])
        report["standard_error"] = standard_error(probabilities.argmax(axis=1) == labels, lots)
    report |= {"engine": predictor.engine_name, "skipped": len(folder.problems)}
    report |= {"subset": chosen.subset, "pictures": chosen.words}
    report |= {"taught": chosen.count("train"), "chose": chosen.count("val")}
    report["confusions"] = _confusions(probabilities, labels, predictor.labels)
    return report | _rejection(predictor, answers, labels)


@dataclass(frozen=True)
class _Chosen:
    """Pictures of a folder to evaluate on.

    ``origins`` are the subsets in which the bundle was shown them, ``""`` for none; None where that is not known.
    """

    indices: np.ndarray
    subset: str
    origins: np.ndarray | None
    words: str

    def count(self, origin: str) -> int | None:
        return None if self.origins is None else int(np.sum(self.origins == origin))


def _choose(folder: ImageFolder, known: Pictures | None, subset: str | None) -> _Chosen:
    everything = np.arange(len(folder))
    splits = np.asarray(folder.splits or [""] * len(folder))
    for name in (subset,) if subset else ("test", "val"):
        own = everything if name == "all" else np.flatnonzero(splits == name)
        if len(own):
            return _chosen(folder, own, str(name), None if known is None else _origins(folder, own, known))
    origins = None if known is None else _origins(folder, everything, known)
    if subset:
        return _noted(folder, origins, subset)
    if origins is None:
        return _chosen(folder, everything, "all", None)
    # Validation pictures chose among settings, so they count as unseen only where there are no others.
    for seen in (("train", "val"), ("train",)):
        unseen = np.flatnonzero(~np.isin(origins, seen))
        if len(unseen):
            return _unseen(folder, unseen, origins)
    return _chosen(folder, everything, "all", origins)


def _origins(folder: ImageFolder, indices: np.ndarray, known: Pictures) -> np.ndarray:
    digests = picture_digests([folder.root / folder.paths[index] for index in indices])
    of = {digest: subset for subset in ("test", "val", "train") for digest in known[subset]}
    return np.asarray([of.get(digest, "") for digest in digests])


def _noted(folder: ImageFolder, origins: np.ndarray | None, subset: str) -> _Chosen:
    """Choose the pictures that the bundle, not the folder, knows as a subset."""
    source = folder.source or folder.root
    if origins is None:
        raise UserError(
            f"{source}: has no {subset} pictures of its own, and the bundle brings no list of those it was made with; "
            "take another --subset, or all"
        )
    own = np.flatnonzero(origins == subset)
    if not len(own):
        counts = Counter(folder.splits or [origin or "unknown to the bundle" for origin in origins])
        having = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        raise UserError(f"{source}: has no {subset} pictures; it has {having}; take another --subset, or all")
    return _chosen(folder, own, subset, origins[own])


def _unseen(folder: ImageFolder, unseen: np.ndarray, origins: np.ndarray) -> _Chosen:
    """The pictures that the bundle did not learn from, known as its test or validation pictures where they all are."""
    found = set(origins[unseen])
    subset = found.pop() if len(found) == 1 and "" not in found else "unseen"
    chosen = _chosen(folder, unseen, subset, origins[unseen], "those that the bundle did not learn from")
    taught, chose = (int(np.sum(np.delete(origins, unseen) == name)) for name in ("train", "val"))
    others = _counts({"taught it": taught, "chose its settings": chose})
    return replace(chosen, words=f"{chosen.words}; of the others {others}" if others else chosen.words)


def _chosen(
    folder: ImageFolder, indices: np.ndarray, subset: str, origins: np.ndarray | None, what: str = ""
) -> _Chosen:
    num, total = len(indices), len(folder)
    words = f"all {total:,} pictures" if num == total else f"{num:,} of {total:,} pictures"
    if num < total:
        words += f", {what or f'the {subset} subset'}"
    chosen = _Chosen(indices, subset, origins, "")
    if origins is None:
        return replace(chosen, words=f"{words}; it is not known which pictures taught the bundle")
    taught, chose = chosen.count("train"), chosen.count("val")
    if taught == num:
        words += "; all of them taught the bundle: how it does on others is not known"
    elif chose == num:
        words += "; all of them chose its settings"
    elif of_them := _counts({"taught the bundle": taught, "chose its settings": chose}):
        words += f"; of them {of_them}"
    elif num == total:
        words += "; the bundle learned from none of them"
    return replace(chosen, words=words)


def _counts(named: Mapping[str, int | None]) -> str:
    return ", ".join(f"{count:,} {words}" for words, count in named.items() if count)


def _confusions(probabilities: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> list[list[Any]]:
    """The most frequent pairs of class and other answer, with the number of pictures."""
    pairs = Counter((int(t), int(a)) for t, a in zip(labels, probabilities.argmax(axis=1), strict=True) if t != a)
    return [[names[true], names[answer], count] for (true, answer), count in pairs.most_common(_NUM_CONFUSIONS)]


def _rejection(predictor: Predictor, answers: list[Answer], labels: np.ndarray) -> dict[str, Any]:
    thresholds = {"reject_below": predictor.reject_below, "novelty_above": predictor.novelty_above}
    known = {name: value for name, value in thresholds.items() if value is not None}
    if not known:
        return {}
    answered = ~np.array([predictor.is_rejected(answer) for answer in answers])
    right = np.array([answer.probabilities.argmax() for answer in answers]) == labels
    return known | {
        "rejected": float(1 - answered.mean()),
        "top1_answered": float(right[answered].mean()) if answered.any() else None,
    }
