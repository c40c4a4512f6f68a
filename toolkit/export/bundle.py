"""Export: build every form of the network beside each other, compare their answers, publish in one step."""

import importlib.metadata
import itertools
import math
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

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
from toolkit.data.feed.split import Subset
from toolkit.engines import available_engines, open_engine
from toolkit.engines.convert import to_litert
from toolkit.engines.runtimes import Engine, KerasEngine
from toolkit.engines.timing import latency, recommend
from toolkit.errors import UserError
from toolkit.export.parity import AccuracyBudget, Comparison, compare_engines
from toolkit.lazy import keras
from toolkit.network import as_float32, weights_digest
from toolkit.spec import Preprocessing

_PACKAGES = ("toolkit", "keras", "tensorflow", "numpy", "pillow", "ai-edge-litert", "openvino")


class ParityError(UserError):
    """Engines of one bundle disagree, so it was not written."""


def export_bundle(
    model: "keras.Model",
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
    temperature: float | None = None,
    reject_below: float | None = None,
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
        temperature: what calibration divided the logits by; for the manifest, it is in the weights already.
        reject_below: the probability under which an answer may be refused; for the manifest.
        force: write the bundle even if its engines disagree; the manifest then says so.

    Returns:
        The new version's directory.

    Raises:
        UserError: Keras runs on another backend than TensorFlow, labels do not match the classifier, or the
            preprocessing does not match the input.
        ParityError: the engines disagree.
    """
    require_tensorflow()
    _require_match(model, labels, preprocessing)
    directory = Path(directory)
    model = as_float32(model)
    staging = staging_dir(directory)
    try:
        _write_forms(model, staging, labels, preprocessing, calibration, methods)
        if evaluation is not None:
            copy_examples(evaluation, staging / EXAMPLES, num_examples)
        engines = {name: open_engine(name, staging, preprocessing) for name in available_engines(staging)}
        reference = KerasEngine(model, preprocessing)
        comparison = compare_engines(reference, engines, preprocessing, evaluation, budget or AccuracyBudget())
        objections = tuple(comparison.objections.values())
        if objections and not force:
            raise ParityError(f"{directory}: not written, its engines disagree: {'; '.join(objections)} (see --force)")
        manifest = Manifest(
            name=directory.name,
            model=model.name,
            num_params=_num_params(model),
            weights_digest=weights_digest(model),
            preprocessing=preprocessing,
            labels=tuple(labels),
            metrics=dict(metrics or {}) | comparison.scores,
            parity=comparison.parity,
            versions=package_versions(),
            recommended_engine=_fastest_trusted(engines, comparison, preprocessing),
            forced=objections,
            temperature=temperature,
            reject_below=reject_below,
        )
        write_manifest(staging, manifest)
        return publish(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def require_tensorflow() -> None:
    """Only TensorFlow writes SavedModels."""
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"a bundle is written by the TensorFlow backend and Keras runs on {keras.backend.backend()!r}: "
            "repeat the command with KERAS_BACKEND=tensorflow; a finished run is not trained again"
        )


def _require_match(model: "keras.Model", labels: tuple[str, ...], preprocessing: Preprocessing) -> None:
    if tuple(model.input_shape[1:]) != preprocessing.input_shape:
        raise UserError(
            f"the network takes {tuple(model.input_shape[1:])} and the preprocessing gives {preprocessing.input_shape}"
        )
    if model.output_shape[-1] != len(labels):
        raise UserError(f"the network has {model.output_shape[-1]} outputs, but {len(labels)} labels were given")


def _write_forms(
    model: "keras.Model",
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


def copy_examples(subset: Subset, directory: Path, count: int) -> None:
    """Put pictures into a bundle for the demo's visitors to click on, spread over the classes."""
    by_label: dict[int, list[str]] = {}
    for path, label in zip(subset.paths, subset.labels, strict=True):
        by_label.setdefault(label, []).append(path)
    # One of each class, then a second of each, until there are enough.
    rounds = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
    chosen = [path for paths in rounds for path in paths if path is not None][:count]
    for index, path in enumerate(chosen):
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, directory / f"{index:02d}{Path(path).suffix.lower()}")


def _fastest_trusted(engines: Mapping[str, Engine], comparison: Comparison, preprocessing: Preprocessing) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.size, 3), np.uint8)
    medians = {name: latency(engines[name], pixels)[0] for name in engines if comparison.trusts(name)}
    return recommend(medians) if medians else "savedmodel"


def _num_params(model: "keras.Model") -> int:
    """Parameters that training can move, whether or not they are frozen now."""
    statistics = ("moving_mean", "moving_variance", "seed_generator_state")
    return sum(math.prod(weight.shape) for weight in model.weights if weight.name not in statistics)


def package_versions() -> dict[str, str]:
    """What a bundle is made with, for its manifest."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
