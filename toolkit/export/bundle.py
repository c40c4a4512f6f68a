"""Export of one network: write its forms beside each other, compare their answers, publish them in one step."""

import itertools
import logging
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import (
    FLOAT_LITERT,
    KERAS_FILE,
    NOVELTY_FILE,
    Example,
    Manifest,
    NoveltyFacts,
    RejectionCurve,
    Timings,
    litert_file,
    next_version,
    publish,
    write_examples,
    write_manifest,
)
from toolkit.compress import Method, quantize
from toolkit.compress.changes import num_parameters, recipe_digest
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.ground import common_ground
from toolkit.engines import ENGINES, FLOAT_ENGINES, available_engines, open_engine
from toolkit.engines.convert import UnquantizableError, to_litert
from toolkit.engines.runtimes import Engine, KerasEngine
from toolkit.engines.timing import latencies, recommend
from toolkit.errors import UserError, one_line
from toolkit.export.parity import (
    NOVELTY_REFERENCE,
    AccuracyBudget,
    Comparison,
    EngineAnswers,
    HeldOutPictures,
    collect_answers,
    compare,
    compare_novelty,
    novelty_objections,
)
from toolkit.factory import save_network
from toolkit.lazy import keras
from toolkit.machine import installed_versions, processor, return_memory
from toolkit.metrics import rejection_curve, top_k_accuracy
from toolkit.network import (
    as_classifier,
    as_float32,
    feature_tensor,
    require_labels,
    rounded_to_half,
    split_rescaling,
    weights_digest,
)
from toolkit.progress import step
from toolkit.spec import Preprocessing
from toolkit.transfer.heads.novelty import CONFIDENCE, REFUSED, Novelty
from toolkit.transfer.stages import with_novelty

log = logging.getLogger("toolkit")

_PACKAGES = ("toolkit", "keras", "tensorflow", "numpy", "pillow", "ai-edge-litert", "openvino")
_NUM_GROUNDS = 200  # training pictures whose borders are looked at


class ParityError(UserError):
    """Engines of one bundle disagree, so it was not written."""


@dataclass(frozen=True)
class BundleOptions:
    """Further keywords of ``export_bundle``.

    Attributes:
        calibration: training pictures that set the int8 ranges; without them there is no int8 file.
        evaluation: held-out pictures that engines are compared on; without them, synthetic ones serve for the
            float comparison and int8 is not compared.
        litert: write the float LiteRT file, which LiteRT and OpenVINO run.
        methods: quantized LiteRT files to write besides.
        files: LiteRT files that are made already, by the name of their method.
        recipes: digests of what those follow from, see ``toolkit.compress.changes.recipe_digest``.
        copied: other files that are made already, by their places in the bundle; its float forms, which are not
            written again, or what else it has.
        num_examples: evaluation pictures to copy into the bundle for the demo, spread over the classes.
        metrics: further figures to keep in the manifest, beside those measured on ``evaluation``.
        pictures: those of ``evaluation``, where they are decoded already.
        reference: the network's probabilities for ``evaluation``, where they are known: it does not run again then.
        budget: how much accuracy a quantized file may cost.
        temperature: what calibration divided the logits by; for the manifest, it is in the weights already.
        reject_below: the probability under which an answer may be refused; for the manifest.
        rejection: by cross-validation, like ``out_of_fold``; without that it is counted on ``evaluation``.
        novelty: answered by the exported graphs too, beside the network; ``model.keras`` is the network alone.
        ground: of the training pictures, for the manifest; by default a grey network's is measured on ``calibration``.
        out_of_fold: ``top1``, ``top5`` and ``n`` of the network by cross-validation, where ``evaluation`` are pictures
            that taught it: engines are compared on them, and the manifest's scores start from these; empty where
            nothing could be measured.
        licence: of the published weights that training began with, for the manifest.
        force: write the bundle even if its engines disagree, and every file; the manifest then says so.
        half: round the weights to half precision and store them in it; everything else follows from the rounded ones.
    """

    calibration: Subset | None = None
    evaluation: Subset | None = None
    litert: bool = True
    methods: tuple[Method, ...] = ("int8",)
    files: Mapping[str, bytes] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    copied: Mapping[str, Path] = field(default_factory=dict)
    num_examples: int = 0
    metrics: Mapping[str, float] | None = None
    pictures: HeldOutPictures | None = None
    reference: np.ndarray | None = None
    budget: AccuracyBudget | None = None
    temperature: float | None = None
    reject_below: float | None = None
    rejection: RejectionCurve | None = None
    novelty: Novelty | None = None
    ground: float | None = None
    out_of_fold: Mapping[str, float] | None = None
    licence: str = ""
    force: bool = False
    half: bool = False


def export_bundle(
    model: "keras.Model",
    directory: str | Path,
    *,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    **options: Any,
) -> Path:
    """Write ``model`` as the next version of the bundle ``directory``.

    Args:
        model: a classifier; exported in float32 whatever policy trained it. It may answer logits, their softmax or
            one sigmoid of two classes: engines are held against what it answers itself. Layers that scale its input
            become part of the preprocessing.
        directory: ``…/NAME``; the version becomes ``…/NAME/1``, or one above the highest there is.
        labels: class names in output order.
        preprocessing: what the network was trained with.
        options: the fields of ``BundleOptions``: ``calibration``, ``evaluation``, ``num_examples``, ``force`` ….

    Returns:
        The new version's directory.

    Raises:
        UserError: Keras runs on another backend than TensorFlow, labels do not match the classifier, or the
            preprocessing does not match the input.
        ParityError: the engines disagree.
    """
    with draft_bundle(model, directory, labels, preprocessing, BundleOptions(**options)) as draft:
        return draft.publish(draft.measure())


@dataclass(frozen=True)
class BundleDraft:
    """A bundle with all its files at ``path``, beside its place: to be measured, then published."""

    path: Path
    directory: Path
    model: "keras.Model"
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    options: BundleOptions
    answering: "keras.Model"  # with the novelty, where that is asked for
    engines: Mapping[str, Engine]
    pictures: HeldOutPictures
    reference: np.ndarray  # the network's probabilities for them

    def measure(
        self, others: Mapping[str, Engine] | None = None, shown: Mapping[str, np.ndarray] | None = None
    ) -> EngineAnswers:
        """Show every engine, and ``others``, the evaluation pictures: see ``collect_answers``."""
        engines = {**self.engines, **(others or {})}
        if self.options.novelty is not None:
            engines[NOVELTY_REFERENCE] = KerasEngine(self.answering, self.preprocessing)
        return collect_answers(self.reference, engines, self.preprocessing, self.pictures, shown=shown)

    def publish(self, answers: EngineAnswers) -> Path:
        """Make the draft the bundle's next version, if the engines agree; without quantized files that lose too much.

        Raises:
            ParityError: they do not.
        """
        options, directory = self.options, self.directory
        comparison = compare(answers, options.budget or AccuracyBudget())
        engines = self.engines
        differences = compare_novelty(answers)
        comparison.objections.update(novelty_objections(differences))
        if not options.force:
            comparison = self._without_failed(comparison)
            engines = {name: engine for name, engine in engines.items() if name in comparison.parity}
        objections = tuple(comparison.objections.values())
        if objections and not options.force:
            raise ParityError(f"{directory}: not written, its engines disagree: {'; '.join(objections)} (see --force)")
        timings = _timings(engines, comparison, self.preprocessing)
        digest, calibration = weights_digest(self.model), options.calibration
        recipes = {
            method: recipe_digest(digest, method, self.preprocessing, calibration)
            for method in options.methods
            if calibration is not None and (self.path / litert_file(method)).exists()
        }
        manifest = Manifest(
            name=directory.name,
            model=self.model.name,
            num_params=num_parameters(self.model),
            weights_digest=digest,
            preprocessing=self.preprocessing,
            labels=tuple(self.labels),
            metrics=dict(options.metrics or {}) | _scores(comparison.scores, options.out_of_fold),
            parity=comparison.parity,
            versions=package_versions(),
            recommended_engine=recommend(timings.p50_ms) if timings.p50_ms else "savedmodel",
            timings=timings,
            forced=objections,
            temperature=options.temperature,
            reject_below=options.reject_below,
            rejection=self._rejection(),
            ground=_ground(options, self.preprocessing),
            novelty=_novelty_facts(
                options.novelty, {name: differences[name] for name in engines if name in differences}
            ),
            recipes=recipes | dict(options.recipes),
            licence=options.licence,
        )
        write_manifest(self.path, manifest)
        return publish(self.path, directory)

    def _rejection(self) -> RejectionCurve | None:
        if self.options.out_of_fold is not None:
            return self.options.rejection
        labels = self.pictures.labels
        return None if labels is None else RejectionCurve(*rejection_curve(self.reference, labels))

    def _without_failed(self, comparison: Comparison) -> Comparison:
        """Drop what goes beyond its budget, and say so: quantized files made beside the float ones, and bfloat16.

        A person who asked for a classifier gets one. What another journey made for its own sake is not dropped.
        """
        made = {litert_file(method) for method in self.options.methods if method not in self.options.files}
        failed = {ENGINES[name].file for name in comparison.objections if name not in FLOAT_ENGINES} & made
        for file in sorted(failed):
            (self.path / file).unlink(missing_ok=True)
        in_bfloat16 = {name for name in comparison.objections if ENGINES[name].bfloat16}
        dropped = {name for name in comparison.parity if ENGINES[name].file in failed} | in_bfloat16
        for name in sorted(dropped & set(comparison.objections)):
            consequence = "not recommended" if name in in_bfloat16 else "written without that file (--force keeps it)"
            log.info("%s: %s", comparison.objections[name], consequence)
        return Comparison(
            {name: value for name, value in comparison.parity.items() if name not in dropped},
            {name: value for name, value in comparison.scores.items() if name.removeprefix("top1_") not in dropped},
            {name: text for name, text in comparison.objections.items() if name not in dropped},
        )


def _novelty_facts(novelty: Novelty | None, parity: dict[str, float]) -> NoveltyFacts | None:
    if novelty is None:
        return None
    method = "Mahalanobis distance to the nearest class mean of unit-length features, relative to a threshold"
    return NoveltyFacts(method, 1.0, REFUSED, CONFIDENCE, novelty.num_judged, parity)


def _scores(measured: Mapping[str, float], out_of_fold: Mapping[str, float] | None) -> dict[str, float]:
    """Take the network's scores from where it did not learn: what engines lose is measured, on pictures that taught it.

    >>> _scores({"top1": 1.0, "top1_litert-int8": 0.99, "n": 50}, {"top1": 0.9, "n": 60})
    {'top1': 0.9, 'n': 60, 'top1_litert-int8': 0.89}
    """
    if out_of_fold is None:
        return dict(measured)
    scores = dict(out_of_fold)
    for name, value in measured.items():
        if name.startswith("top1_") and "top1" in scores:
            scores[name] = round(max(0.0, scores["top1"] + value - measured["top1"]), 12)
    return scores


@contextmanager
def draft_bundle(
    model: "keras.Model",
    directory: str | Path,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    options: BundleOptions,
) -> Iterator[BundleDraft]:
    """Write a bundle's files, see ``export_bundle``; what is not published inside the ``with`` is gone after it.

    Held-out accuracy is known, and logged, before the first file is written.
    """
    require_tensorflow()
    given, seen = as_float32(model), preprocessing
    model = as_float32(as_classifier(model))
    _require_match(model, labels, preprocessing)
    model, preprocessing = split_rescaling(model, preprocessing)
    reference = options.reference
    if options.half:
        model = rounded_to_half(model)
        given, seen, reference = model, preprocessing, None  # what it answered before is another network's
    directory = Path(directory)
    with next_version(directory) as staging:
        pictures = options.pictures or HeldOutPictures(options.evaluation, preprocessing)
        if reference is None:
            reference = pictures.answers(KerasEngine(given, seen).probabilities, "classifying held-out pictures")
        place = one_line(str(directory))
        if options.out_of_fold is not None:
            log.info("writing %s", place)
        elif pictures.labels is not None:
            accuracy = 100 * top_k_accuracy(reference, pictures.labels, 1)
            log.info("held-out accuracy: %.2f %% of %s pictures; writing %s", accuracy, f"{len(pictures):,}", place)
        answering = model if options.novelty is None else with_novelty(model, options.novelty)
        _write_forms(answering, staging, labels, preprocessing, options)
        return_memory(_num_bytes(model))
        if options.evaluation is not None:
            copy_examples(options.evaluation, staging, options.num_examples, labels)
        with step("opening engines"):
            engines = {name: open_engine(name, staging, preprocessing) for name in available_engines(staging)}
        return_memory(_num_bytes(model))
        yield BundleDraft(
            staging, directory, model, labels, preprocessing, options, answering, engines, pictures, reference
        )


def _num_bytes(model: "keras.Model") -> int:
    return 4 * model.count_params()


def require_tensorflow() -> None:
    """Refuse other Keras backends than TensorFlow, which alone writes SavedModels."""
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
    require_labels(model, len(labels))
    feature_tensor(model)


def _write_forms(
    model: "keras.Model", staging: Path, labels: tuple[str, ...], preprocessing: Preprocessing, options: BundleOptions
) -> None:
    from toolkit.export.saved_model import write_saved_model, write_warmup

    for place, file in options.copied.items():
        (staging / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, staging / place)
    if KERAS_FILE not in options.copied:
        with step("writing the SavedModel"):
            write_saved_model(model, staging, labels=labels, preprocessing=preprocessing, half=options.half)
            write_warmup(staging, preprocessing)
            # The network alone: an optimizer's state would double the file, and ours could not be opened elsewhere.
            network = keras.Model(model.inputs, model.outputs[0], name=model.name)
            network.preprocessing = preprocessing
            save_network(network, staging / KERAS_FILE, half=options.half)
    if options.novelty is not None:
        options.novelty.write(staging / NOVELTY_FILE)
    files: dict[str, bytes] = dict(options.files)
    methods = [method for method in options.methods if method != "int8" or options.calibration is not None]
    float_file = None
    if FLOAT_LITERT in options.copied:
        float_file = (staging / FLOAT_LITERT).read_bytes()
    elif options.litert or {"int8", "int16x8"}.intersection(methods):
        return_memory(_num_bytes(model))
        float_file = to_litert(model)
    if options.litert and float_file is not None:
        (staging / FLOAT_LITERT).write_bytes(float_file)
    for method in methods:
        return_memory(_num_bytes(model))  # of converters, which hold all weights several times
        try:
            files[method] = quantize(
                model, method, preprocessing=preprocessing, calibration=options.calibration, float_file=float_file
            )
        except UnquantizableError as error:  # what does without is worth having
            log.info("%s; the bundle is written without that file", error)
    for kind, content in files.items():
        (staging / litert_file(kind)).write_bytes(content)


def copy_examples(subset: Subset, version_dir: Path, count: int, labels: Sequence[str]) -> None:
    """Put ``count`` pictures into a bundle for the demo's visitors to click on, spread over the classes."""
    by_label: dict[int, list[Example]] = {}
    for path, label in zip(subset.paths, subset.labels, strict=True):
        by_label.setdefault(label, []).append(Example(Path(path), labels[label]))
    # One of each class, then a second of each, until there are enough.
    rounds = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
    chosen = [example for examples in rounds for example in examples if example is not None]
    write_examples(version_dir, chosen[:count])


def _timings(engines: Mapping[str, Engine], comparison: Comparison, preprocessing: Preprocessing) -> Timings:
    pixels = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.size, 3), np.uint8)
    trusted = {name: engine for name, engine in engines.items() if comparison.trusts(name)}
    with step("timing engines"):
        found = latencies(trusted, pixels, max_seconds=0.4)
    return Timings(processor(), {name: round(latency.median, 3) for name, latency in found.items()})


def _ground(options: BundleOptions, preprocessing: Preprocessing) -> float | None:
    pictures = options.calibration
    if options.ground is not None or pictures is None or preprocessing.channel_order != "grey":
        return options.ground
    some = pictures.paths[:: max(1, len(pictures) // _NUM_GROUNDS)][:_NUM_GROUNDS]
    return common_ground(load_pixels(some, preprocessing))


def package_versions() -> dict[str, str]:
    """Look up the versions of Python and of the packages that a bundle is made with, for its manifest."""
    return {"python": platform.python_version(), **installed_versions(*_PACKAGES)}
