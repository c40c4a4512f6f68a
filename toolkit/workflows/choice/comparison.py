"""Several networks compared on a sample of a folder's pictures, and the fine-tuning of the best."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, teaching_split
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError, one_line
from toolkit.lazy import keras
from toolkit.network import as_float32
from toolkit.progress import track
from toolkit.spec import Preprocessing
from toolkit.transfer import FeatureExtractor, FinetuneOptions
from toolkit.transfer.heads.selection import SelectionOptions, select_head
from toolkit.transfer.stages import pooled_cuts
from toolkit.workflows.choice.at_hand import AtHand, networks_at_hand
from toolkit.workflows.finetune import FinetunedFolder, FolderOptions, fit_folder, fitting_network, require_places
from toolkit.workflows.steps import ExportOptions, require_size, scan

log = logging.getLogger("toolkit")

_SAMPLE, _LEAST_PER_CLASS = 300, 5  # pictures compared on, in all and of a class as far as it has them
_MAX_TIMED, _SECONDS_TIMED = 20, 1.0


@dataclass(frozen=True)
class Limits:
    """Upper limits of the network that is chosen.

    Attributes:
        milliseconds: for a picture, on the fastest float engine of this machine.
        megabytes: of weights as float32.
    """

    milliseconds: float | None = None
    megabytes: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--max-ms", self.milliseconds), ("--max-mb", self.megabytes)):
            if value is not None and not value > 0:
                raise UserError(f"{name} must be more than 0, got {value:g}")

    def exceeded(self, megabytes: float, milliseconds: float = 0.0) -> str:
        """Say which limit is exceeded; empty if none is."""
        if self.megabytes is not None and megabytes > self.megabytes:
            return f"over {self.megabytes:g} MB"
        if self.milliseconds is not None and milliseconds > self.milliseconds:
            return f"over {self.milliseconds:g} ms"
        return ""


@dataclass(frozen=True)
class ComparedNetwork:
    """A network's figures on the sample.

    Attributes:
        name: of the network.
        weights: a tag or the path of a file.
        megabytes: of weights as float32.
        milliseconds: for one picture, on the fastest float engine here; None where size rules the network out.
        accuracy: out of fold, a fraction; None where it was not measured.
        standard_error: of the accuracy.
        excluded: the reason why it cannot be chosen; empty if it can.
        chosen: whether it was.
    """

    name: str
    weights: str
    megabytes: float
    milliseconds: float | None = None
    accuracy: float | None = None
    standard_error: float | None = None
    excluded: str = ""
    chosen: bool = False


def fit_best(
    data: str | Path,
    names: tuple[str, ...],
    *,
    weights: str | Path,
    limits: Limits,
    options: FolderOptions,
    export: ExportOptions | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FinetunedFolder:
    """Compare networks on a sample of the pictures, and fine-tune the best.

    Args:
        data: see ``fit_folder``, as are ``export``, ``options`` and ``on_epoch``.
        names: networks to choose among; all whose weights are here if empty.
        weights: a folder of weights files that are named after their networks, such a file, or a tag.
        limits: of speed and size.
    """
    at_hand = networks_at_hand(names, weights)
    for name in names:
        require_size(model_info(name), options.size, "--size")
    require_places(export, options)
    compared = compare_networks(data, at_hand, limits, options)
    for line in comparison_lines(compared):
        log.info(line)
    chosen = next(own for own in compared if own.chosen)
    fitted = fit_folder(data, chosen.name, weights=chosen.weights, export=export, options=options, on_epoch=on_epoch)
    return replace(fitted, networks=tuple(asdict(own) for own in compared))


def compare_networks(
    data: str | Path, at_hand: Sequence[AtHand], limits: Limits, options: FolderOptions
) -> list[ComparedNetwork]:
    """Measure networks on a sample of the training pictures, and choose one.

    Of those within one standard error of the most accurate, the fastest is chosen.

    Raises:
        UserError: none can be chosen.
    """
    folder = scan(data, options.skip_bad)
    split, lots = teaching_split(folder, keep_val=options.keep_val)
    indices = _sample(np.asarray(split.train.labels))
    sample, lot_of = split.train.picked(indices), np.asarray(lots.lot_of)[indices]
    compared = []
    for own in track(at_hand, "comparing networks"):
        try:
            compared.append(_measured(own, folder, (sample, lot_of), limits, options))
        except UserError as error:  # a damaged file of one network is no reason not to take another
            log.warning("left out %s: %s", own.name, one_line(str(error)))
    return _choose(compared)


def _choose(compared: list[ComparedNetwork]) -> list[ComparedNetwork]:
    """Mark the fastest of those that are as good as the most accurate."""
    able = [own for own in compared if not own.excluded and own.accuracy is not None]
    if not able:
        reasons = "; ".join(f"{own.name}: {own.excluded or 'too few pictures to compare'}" for own in compared)
        raise UserError(
            f"no network can be chosen ({reasons or 'all were left out'}); raise the limits, or name a --model"
        )
    best = max(able, key=lambda own: own.accuracy or 0.0)
    enough = (best.accuracy or 0.0) - (best.standard_error or 0.0)
    good = [own for own in able if (own.accuracy or 0.0) >= enough]
    chosen = min(good, key=lambda own: (own.milliseconds or 0.0, own.megabytes))
    return [replace(own, chosen=own is chosen) for own in compared]


def comparison_lines(compared: Sequence[ComparedNetwork]) -> list[str]:
    """Lay the comparison out in lines of text, the most accurate first."""
    width = max(len("network"), *(len(own.name) for own in compared))
    lines = [f"{'network':{width}}  accuracy, out of fold  ms a picture      MB"]
    for own in sorted(compared, key=lambda own: -(own.accuracy or 0.0)):
        reached = ""
        if own.accuracy is not None:
            reached = f"{100 * own.accuracy:.1f} ± {100 * (own.standard_error or 0.0):.1f} %"
        milliseconds = "" if own.milliseconds is None else f"{own.milliseconds:.1f}"
        line = f"{own.name:{width}}  {reached:>21}  {milliseconds:>12}  {own.megabytes:>6.1f}"
        lines.append(f"{line}  {'chosen' if own.chosen else own.excluded}".rstrip())
    return lines


def _sample(labels: np.ndarray) -> np.ndarray:
    """Draw pictures of every class in proportion, but some of each, sorted indices."""
    rng = np.random.default_rng(0)
    share = min(1.0, _SAMPLE / len(labels))
    drawn = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        drawn.append(members[: max(_LEAST_PER_CLASS, round(share * len(members)))])
    return np.sort(np.concatenate(drawn))


def _measured(
    own: AtHand, folder: ImageFolder, drawn: tuple[Subset, np.ndarray], limits: Limits, options: FolderOptions
) -> ComparedNetwork:
    """Measure a network on pictures drawn from a folder, which come with their lots, as it will see them."""
    sample, lots = drawn
    num_classes = len(folder.class_names)
    model, preprocessing = fitting_network(model_info(own.name), folder, own.weights, options.size)
    found = ComparedNetwork(own.name, own.weights, model.count_params() * 4 / 1e6)
    if not isinstance(model.layers[-1], keras.layers.Dense):
        return replace(found, excluded="has no dense classifier to fit")
    too_much = limits.exceeded(found.megabytes)
    if too_much:
        return replace(found, excluded=too_much)
    found = replace(found, milliseconds=_milliseconds(model, preprocessing, sample.paths[:1]))
    too_much = limits.exceeded(found.megabytes, found.milliseconds or 0.0)
    if too_much:
        return replace(found, excluded=too_much)
    how = (options.finetuning or FinetuneOptions()).extraction
    cuts = pooled_cuts(model)
    with FeatureExtractor(model, preprocessing, cache_dir=options.cache_dir, how=how, cuts=cuts) as extractor:
        features = {name: features.plain for name, features in extractor.extract_cuts(sample.paths).items()}
    chosen = select_head(features, sample.labels, num_classes=num_classes, options=SelectionOptions(lots=lots))
    return replace(found, accuracy=chosen.accuracy, standard_error=chosen.standard_error)


def _milliseconds(model: "keras.Model", preprocessing: Preprocessing, paths: Sequence[str]) -> float:
    """Measure a picture's way through the whole network in float32, on the fastest engine here.

    The fastest of some calls counts: whatever else the machine does only adds, and not to all networks alike.
    """
    from toolkit.engines.extract import open_extractor

    pixels = load_pixels(paths, preprocessing)
    engine = open_extractor(as_float32(model), preprocessing, pixels, batch_size=1, precision="float32")
    engine.answers(pixels)
    times: list[float] = []
    while len(times) < _MAX_TIMED and sum(times) < _SECONDS_TIMED:
        start = time.perf_counter()
        engine.answers(pixels)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)
