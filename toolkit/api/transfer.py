"""Calls that fine-tune and look after the cache of features."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.api.calls import call
from toolkit.api.options import seconds, source_of
from toolkit.api.results import FORMATS, Finetuned
from toolkit.bundle import find_bundle, read_manifest, shipped_bundle
from toolkit.errors import UserError

if TYPE_CHECKING:
    from toolkit.spec import Preprocessing
    from toolkit.workflows.finetune import FinetunedFolder

#: Passes over the pictures by unfrozen stages, and the most of them within a time budget.
EPOCHS, MOST_EPOCHS = 5, 12


@call
def finetune(
    data: str | os.PathLike[str],
    *,
    model: str,
    weights: str | os.PathLike[str] = "imagenet",
    out: str | os.PathLike[str] | None = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    preprocessing: "str | Preprocessing | None" = None,
    size: int | None = None,
    head: Literal["auto", "lbfgs", "adam", "ridge"] = "auto",
    hidden: Sequence[int] = (),
    keep_val: bool = False,
    views: int = 1,
    balanced: bool = False,
    unfreeze: str = "auto",
    gradual: bool = False,
    budget: str | float | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    cache: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    report: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    formats: Sequence[str] = FORMATS,
    half: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Finetuned:
    """Put a new classifier on a pretrained network, by cross-validation on a folder's pictures.

    >>> import toolkit
    >>> result = toolkit.finetune("photos", model="googlenet")  # doctest: +SKIP
    >>> result.report()  # doctest: +SKIP
    >>> result.export("saved_models/mine")  # doctest: +SKIP

    Args:
        data: a folder with one folder of pictures per class, a CSV file ``path,label``, an archive, IDX files, or a
            ``toolkit.Source``.
        model: a network, see ``toolkit.list_models``; ``"keras.applications:NAME"``; a ``.keras`` file; ``"auto"``, or
            ``"M,M"``, for the best of several.
        weights: a tag, a file of weights, a run or a bundle; of several networks, a folder of such files.
        out: write a bundle at once: ``saved_models/NAME``. Without it nothing is written; ``result.export`` does so.
        max_ms: of several networks, one that takes no longer a picture, in milliseconds.
        max_mb: of several networks, one that is no larger, in megabytes.
        preprocessing: of a network that is in no table: ``"imagenet"``, ``"caffe"``, ``"inception"``, ``"none"``,
            fields as JSON, or a ``Preprocessing``.
        size: pixels a side that the network sees, by default as it was trained, of tiny pictures fewer; more show finer
            detail and take longer.
        head: the classifier's solver.
        hidden: widths of hidden layers before the logits.
        keep_val: hold the folder's own validation pictures out; else they teach too.
        views: of each picture, cached.
        balanced: weigh all classes alike, whatever their sizes.
        unfreeze: then train from this stage on; ``"none"``, or ``"auto"`` by the number of pictures.
        gradual: unfreeze one stage after another.
        budget: the best classifier that so long buys: ``"90s"``, ``"10m"``, or a number of minutes.
        epochs: of unfrozen stages, by default 5, with a budget at most 12.
        lr: of unfrozen stages, by default 0.003.
        cache: folder of the cached features, by default in the user's cache.
        cluster: compute features on this Ray cluster; ``"local"`` starts one here.
        report: also write the report to this HTML file.
        examples: held-out pictures to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        formats: files of the bundle: the SavedModel always, ``"litert"``, and quantized ones by their method.
        half: round the weights to half precision, which halves the bundle; it computes in float32 as before.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: folders by the splits that they are, or ``"none"``; by default their names tell.
        join_classes: make one class of those whose names differ in case, blanks or Unicode form only.
        on_epoch: called with each epoch's metrics while unfrozen stages train.

    Returns:
        The fine-tuned network and how it came about: ``result["accuracy"]``, ``result.report()``, ``result.export()``,
        ``result.model``.

    Raises:
        UserError: bad data, a bad option, or a place that cannot be written.
    """
    started = time.monotonic()
    names = () if model == "auto" else tuple(model.split(","))
    for name in names:
        if bundle := shipped_bundle(name):
            own = read_manifest(find_bundle(bundle)).model
            raise UserError(f"{name} is a bundle that comes with the project: --model {own} --weights {name}")
    _require_sense(names, {"--max-ms": max_ms, "--max-mb": max_mb}, preprocessing)
    given = {"--epochs": epochs is not None, "--lr": lr is not None, "--gradual": gradual}
    if any(given.values()) and unfreeze == "none":
        useless = ", ".join(option for option, is_given in given.items() if is_given)
        raise UserError(f"--unfreeze none trains no stages, and {useless} would change nothing; leave one out")
    from toolkit.factory import read_preprocessing
    from toolkit.transfer import AugmentedViews, Extraction, FinetuneOptions, HeadOptions, UnfrozenOptions
    from toolkit.workflows import ExportOptions
    from toolkit.workflows.finetune import FolderOptions

    unfrozen = UnfrozenOptions(
        epochs=(EPOCHS if budget is None else MOST_EPOCHS) if epochs is None else epochs,
        learning_rate=UnfrozenOptions.learning_rate if lr is None else lr,
        gradual=gradual,
        balanced=balanced,
    )
    finetuning = FinetuneOptions(
        unfreeze=unfreeze,
        views=AugmentedViews(views),
        head=HeadOptions(solver=head, hidden=tuple(map(int, hidden)), balanced=balanced),
        unfrozen=unfrozen,
        extraction=Extraction(ray=cluster),
        deadline=None if budget is None else started + seconds(budget),
    )
    options = FolderOptions(
        cache_dir=_features(cache),
        finetuning=finetuning,
        report=None if report is None else Path(report),
        skip_bad=skip_bad,
        keep_val=keep_val,
        preprocessing=read_preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing,
        curve=out is None,
        size=size,
    )
    export = None if out is None else ExportOptions(Path(out), examples, force, tuple(formats), half)
    fit = _journey(names, max_ms, max_mb)
    source = source_of(data, split_folders, join_classes)
    fitted = fit(source, weights=weights, export=export, options=options, on_epoch=on_epoch)
    return Finetuned(fitted.deliver(export, options.report), fitted)


def _require_sense(names: tuple[str, ...], limits: Mapping[str, float | None], preprocessing: Any) -> None:
    """Refuse what is for several networks of one, and the other way round."""
    if len(names) != 1:
        if preprocessing is not None:
            raise UserError(
                "--preprocessing is for a network from a file; those compared bring theirs with their weights"
            )
        return
    for option, value in limits.items():
        if value is not None:
            raise UserError(f"{option} chooses among several networks: --model auto, not {names[0]}")


def _journey(names: tuple[str, ...], max_ms: float | None, max_mb: float | None) -> "Callable[..., FinetunedFolder]":
    """Take the journey of the one network that is named, or of the best of several."""
    if len(names) == 1:
        from toolkit.workflows.finetune import fit_folder

        return partial(fit_folder, model_name=names[0])
    from toolkit.workflows.choice.comparison import Limits, fit_best

    return partial(fit_best, names=names, limits=Limits(max_ms, max_mb))


@call
def list_cache(cache: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """List the features that are cached on disk, how much of them, and when they were last used.

    >>> import tempfile
    >>> import toolkit
    >>> toolkit.list_cache(tempfile.mkdtemp())["contexts"]
    []

    Args:
        cache: its folder, by default in the user's cache.

    Returns:
        ``{"path", "bytes", "contexts"}``; a context is a network cut at a place, with ``"id"`` and ``"entries"``.
    """
    from toolkit.transfer import cache as features

    return features.list_cache(_features(cache))


@call
def verify_cache(cache: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Check every entry of the cache of features, and remove the damaged ones.

    Args:
        cache: its folder, by default in the user's cache.

    Returns:
        ``{"path", "entries", "damaged"}``.
    """
    from toolkit.transfer import cache as features

    return features.verify_cache(_features(cache))


@call
def prune_cache(
    contexts: Sequence[str] = (),
    *,
    unused_days: float | None = None,
    all: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Remove features that are no longer wanted from the cache, and shrink its file.

    Args:
        contexts: beginnings of identifiers, see ``list_cache``.
        unused_days: whatever was not used for so long.
        all: everything.
        cache: its folder, by default in the user's cache.

    Returns:
        ``{"path", "entries", "bytes", "compacted"}``: what was removed, and what is left.
    """
    from toolkit.transfer import cache as features

    return features.prune_cache(_features(cache), contexts=tuple(contexts), unused_days=unused_days, everything=all)


def _features(cache: str | os.PathLike[str] | None) -> Path:
    from toolkit.machine import cache_dir

    return Path(cache) if cache else cache_dir() / "features"
