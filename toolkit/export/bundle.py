"""Export: build every form of the network beside each other, compare their answers, publish in one step."""

import importlib.metadata
import itertools
import logging
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from toolkit.bundle import (
    EXAMPLES,
    FLOAT_LITERT,
    KERAS_FILE,
    Manifest,
    litert_file,
    publish,
    staging_dir,
    write_manifest,
)
from toolkit.compress import Method, quantize
from toolkit.data.arrays import load_pixels
from toolkit.data.split import Subset
from toolkit.engines import FLOAT_ENGINES, available_engines, open_engine
from toolkit.engines.convert import as_float32, to_litert, weights_digest
from toolkit.engines.runtimes import Engine, KerasEngine
from toolkit.engines.timing import latency
from toolkit.metrics import top_k_accuracy
from toolkit.spec import Preprocessing, UserError

log = logging.getLogger(__name__)

#: Largest difference in probability between float engines.
FLOAT_TOLERANCE = 1e-4
#: Pictures over which float engines are compared.
NUM_PARITY = 64

_PACKAGES = ("toolkit", "keras", "tensorflow", "numpy", "pillow", "ai-edge-litert", "openvino")


class ParityError(UserError):
    """Engines of one bundle disagree, so it was not written."""


@dataclass(frozen=True)
class AccuracyBudget:
    """How much top-1 an int8 file may lose: ``points`` percentage points or ``pictures``, whichever is more."""

    points: float = 1.0
    pictures: int = 2

    def allows(self, lost: float, num_examples: int) -> bool:
        """Whether losing the fraction ``lost`` over ``num_examples`` pictures is within the budget."""
        return lost * num_examples <= max(self.points / 100 * num_examples, self.pictures) + 1e-9


def export_bundle(
    model: keras.Model,
    directory: str | Path,
    *,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    calibration: Subset | None = None,
    evaluation: Subset | None = None,
    methods: tuple[Method, ...] = ("int8",),
    num_examples: int = 0,
    metrics: Mapping[str, float] | None = None,
    budget: AccuracyBudget | None = None,
    force: bool = False,
) -> Path:
    """Write ``model`` as the next version of the bundle ``directory``.

    Args:
        model: a classifier that answers logits; exported in float32 whatever policy trained it.
        directory: ``…/NAME``; the version becomes ``…/NAME/1``, or one above the highest there is.
        labels: class names in output order.
        preprocessing: what the network was trained with.
        calibration: training pictures that set the int8 ranges; without them there is no int8 file.
        evaluation: held-out pictures that engines are compared on; without them, synthetic ones serve for the
            float comparison and int8 is not compared.
        methods: quantized LiteRT files to write beside the float one.
        num_examples: evaluation pictures to copy into the bundle for the demo, spread over the classes.
        metrics: further figures to keep in the manifest, beside those measured here on ``evaluation``.
        budget: how much accuracy int8 may cost.
        force: write the bundle even if its engines disagree; the manifest then says so.

    Returns:
        The new version's directory.

    Raises:
        UserError: labels do not match the classifier, or the preprocessing does not match the input.
        ParityError: the engines disagree.
    """
    _require_match(model, labels, preprocessing)
    directory = Path(directory)
    model = as_float32(model)
    staging = staging_dir(directory)
    try:
        _write_forms(model, staging, labels, preprocessing, calibration, methods)
        if evaluation is not None:
            _copy_examples(evaluation, staging / EXAMPLES, num_examples)
        pixels, truth = _parity_pixels(preprocessing, evaluation)
        names = available_engines(staging)
        engines = {name: open_engine(name, staging, preprocessing) for name in names}
        parity, scores, objections = _compare(
            KerasEngine(model, preprocessing), engines, pixels, truth, budget or AccuracyBudget()
        )
        if objections and not force:
            raise ParityError(f"{directory}: not written, its engines disagree: {'; '.join(objections)} (see --force)")
        manifest = Manifest(
            name=directory.name,
            model=model.name,
            num_params=int(sum(np.prod(v.shape) for v in model.trainable_variables)),
            weights_digest=weights_digest(model),
            preprocessing=preprocessing,
            labels=tuple(labels),
            metrics=dict(metrics or {}) | scores,
            parity=parity,
            versions=_versions(),
            recommended_engine=_recommend(engines, pixels, objections, judged=truth is not None),
            forced=tuple(objections),
        )
        write_manifest(staging, manifest)
        return publish(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _require_match(model: keras.Model, labels: tuple[str, ...], preprocessing: Preprocessing) -> None:
    if tuple(model.input_shape[1:]) != preprocessing.input_shape:
        raise UserError(
            f"the network takes {tuple(model.input_shape[1:])} and the preprocessing gives {preprocessing.input_shape}"
        )
    if model.output_shape[-1] != len(labels):
        raise UserError(f"the network has {model.output_shape[-1]} outputs, but {len(labels)} labels were given")


def _write_forms(
    model: keras.Model,
    staging: Path,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    calibration: Subset | None,
    methods: tuple[Method, ...],
) -> None:
    from toolkit.export.saved_model import write_saved_model, write_warmup

    labels_file = staging / "labels.txt"
    labels_file.write_text("\n".join(labels) + "\n", encoding="utf-8")
    write_saved_model(model, staging, labels=labels, preprocessing=preprocessing, labels_file=labels_file)
    labels_file.unlink()
    write_warmup(staging, preprocessing)
    model.save(staging / KERAS_FILE)
    (staging / FLOAT_LITERT).write_bytes(to_litert(model))
    for method in methods:
        if method == "int8" and calibration is None:
            continue
        file = quantize(model, method, preprocessing=preprocessing, calibration=calibration)
        (staging / litert_file(method)).write_bytes(file)


def _copy_examples(subset: Subset, directory: Path, count: int) -> None:
    by_label: dict[int, list[str]] = {}
    for path, label in zip(subset.paths, subset.labels, strict=True):
        by_label.setdefault(label, []).append(path)
    # One of each class, then a second of each, until there are enough.
    rounds = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
    chosen = [path for paths in rounds for path in paths if path is not None][:count]
    for index, path in enumerate(chosen):
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, directory / f"{index:02d}{Path(path).suffix.lower()}")


def _parity_pixels(preprocessing: Preprocessing, evaluation: Subset | None) -> tuple[np.ndarray, np.ndarray | None]:
    if evaluation is not None and len(evaluation):
        return load_pixels(evaluation.paths, preprocessing), np.asarray(evaluation.labels)
    return np.random.default_rng(0).integers(0, 256, (16, *preprocessing.size, 3), np.uint8), None


def _compare(
    reference: Engine,
    engines: Mapping[str, Engine],
    pixels: np.ndarray,
    truth: np.ndarray | None,
    budget: AccuracyBudget,
) -> tuple[dict[str, float], dict[str, float], list[str]]:
    expected = in_batches(reference, pixels)
    parity: dict[str, float] = {}
    scores: dict[str, float] = {}
    if truth is not None:
        scores = {"top1": top_k_accuracy(expected, truth, 1), "top5": top_k_accuracy(expected, truth, 5)}
        scores["n"] = len(truth)
    # The pictures come sorted by class: taken from the front, they would show one class only.
    spread = np.unique(np.linspace(0, len(pixels) - 1, NUM_PARITY).astype(int))
    objections: list[str] = []
    for name, engine in engines.items():
        quantized = name not in FLOAT_ENGINES
        subset = np.arange(len(pixels)) if quantized else spread
        answer = in_batches(engine, pixels[subset])
        parity[name] = float(np.abs(answer - expected[subset]).max())
        log.info("%s: largest difference in probability from Keras %.2g", name, parity[name])
        if not quantized and not parity[name] <= FLOAT_TOLERANCE:  # so that NaN is an objection too
            objections.append(f"{name} differs from Keras by {parity[name]:.2g}, more than {FLOAT_TOLERANCE}")
        if quantized and truth is not None:
            scores[f"top1_{name}"] = top_k_accuracy(answer, truth, 1)
            lost = scores["top1"] - scores[f"top1_{name}"]
            if not budget.allows(lost, len(truth)):
                objections.append(f"{name} loses {100 * lost:.1f} points of top-1 over {len(truth)} pictures")
    return parity, scores, objections


def in_batches(engine: Engine, pixels: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Probabilities for any number of pictures, without holding more than a batch of activations."""
    parts = [engine.probabilities(pixels[i : i + batch_size]) for i in range(0, len(pixels), batch_size)]
    return np.concatenate(parts)


def _recommend(engines: Mapping[str, Engine], pixels: np.ndarray, objections: list[str], *, judged: bool) -> str:
    excluded = {objection.split()[0] for objection in objections}
    if not judged:  # a quantized file whose accuracy nobody measured is within no budget
        excluded |= set(engines) - set(FLOAT_ENGINES)
    one = pixels[:1]
    medians = {name: latency(engine, one)[0] for name, engine in engines.items() if name not in excluded}
    if not medians:
        return "savedmodel"
    fastest_float = min((n for n in medians if n in FLOAT_ENGINES), key=medians.__getitem__, default=None)
    fastest = min(medians, key=medians.__getitem__)
    # int8 answers differ a little; it has to be clearly faster to be worth that.
    if fastest_float and medians[fastest] > 0.8 * medians[fastest_float]:
        return fastest_float
    return fastest


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
