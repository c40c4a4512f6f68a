"""Calls on bundles: measure, compress, join, export, serve."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.api.calls import call
from toolkit.api.options import source_of
from toolkit.api.results import FORMATS, Compressed, Evaluated, Result, accuracy_in_words, place_beside
from toolkit.errors import UserError, unknown_name

if TYPE_CHECKING:
    from toolkit.spec import Preprocessing


@call
def evaluate(
    bundle: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    subset: str | None = None,
    others: Sequence[str | os.PathLike[str]] = (),
    crops: int = 1,
    scales: Sequence[int] = (),
    engine: str = "auto",
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Evaluated:
    """Measure a bundle's accuracy on pictures that it did not learn from.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        data: see ``toolkit.finetune``; class folders are among the bundle's labels.
        subset: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; by default test, else val, else the pictures that did
            not teach the bundle.
        others: bundles whose answers are averaged in.
        crops: of each picture, to average.
        scales: shorter sides in pixels, each with all of the crops.
        engine: what runs the network, see ``toolkit.Predictor.load``.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``result["top1"]``, a fraction, ``result["per_class"]``, ``result["confusions"]`` and more, see
        ``toolkit.inference.evaluate_bundle``; ``result.report()``.

    Raises:
        UserError: no such bundle, pictures of other classes, or unreadable ones.
    """
    from toolkit.inference import Predictor
    from toolkit.inference.evaluate import SUBSETS, evaluate_bundle

    if subset not in (None, *SUBSETS):
        raise UserError(unknown_name("subset", str(subset), list(SUBSETS)))
    if not Path(data).exists():  # before an engine is loaded
        raise UserError(f"{os.fspath(data)}: no such folder or file")
    predictor = Predictor.load_several([bundle, *others], engine, crops=crops, scales=scales)
    source = source_of(data, split_folders, join_classes)
    report = evaluate_bundle(predictor, source, subset=subset, skip_bad=skip_bad)
    return Evaluated(report | {"crops": crops, "scales": list(scales)})


class Joined(Result):
    """Bundles joined in one, see ``toolkit.ensemble``."""

    @property
    def place(self) -> Path | None:
        """The bundle's folder for what is beside the SavedModel."""
        return place_beside(self)

    def _lines(self) -> list[str]:
        return [*([accuracy_in_words(self["metrics"])] if "top1" in self["metrics"] else []), self["bundle"]]


@call
def ensemble(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    crops: int = 1,
    scales: Sequence[int] = (),
    data: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Joined:
    """Export bundles as one that averages them, over several views if asked.

    Args:
        bundles: with the same labels; one will do to export its views.
        out: the bundle, ``saved_models/NAME``.
        crops: of each picture, to average.
        scales: shorter sides in pixels, each with all of the crops.
        data: the pictures they were trained on: for its accuracy and its reject threshold.
        examples: held-out pictures to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``{"bundle", "members", "crops", "scales", "metrics", "parity", "reject_below"}``.

    Raises:
        UserError: labels differ, or the bundle cannot be written.
    """
    from toolkit.workflows import ExportOptions
    from toolkit.workflows.ensemble import ensemble_bundles

    return Joined(
        ensemble_bundles(
            bundles,
            export=ExportOptions(Path(out), examples, force),
            crops=crops,
            scales=scales,
            data=None if data is None else source_of(data, split_folders, join_classes),
            skip_bad=skip_bad,
        )
    )


@call
def compress(
    bundle: str | os.PathLike[str],
    *,
    method: str,
    data: str | os.PathLike[str],
    epochs: int = 3,
    learning_rate: float = 1e-5,
    sparsity: float = 0.5,
    pattern: str = "any",
    clusters: int = 16,
    keep_float: Sequence[str] = (),
    keep_worst: int = 0,
    report: str | os.PathLike[str] | None = None,
    force: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Compressed:
    """Compress a bundle's network and write the bundle's next version.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        method: ``"int8"``, ``"float16"``, ``"dynamic"``, ``"int16x8"``, ``"qat"``, ``"prune"``, ``"cluster"``, or
            several joined, such as ``"prune+int8"``.
        data: the pictures it was trained on.
        epochs: of more training, for the methods that train on.
        learning_rate: at its start.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        clusters: values per kernel.
        keep_float: layers to leave in float under int8 and qat.
        keep_worst: leave so many layers in float that int8 hurts most.
        report: also write the report to this HTML file.
        force: write it even if too much accuracy is lost.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``result["bundle"]``, ``result["bytes"]``, ``result["top1"]`` and more, see
        ``toolkit.workflows.compress_bundle``; ``result.report()``.

    Raises:
        UserError: bad input, or more accuracy lost than the budget of a bundle allows.
    """
    from toolkit.workflows.compress import CompressionOptions, compress_bundle

    options = CompressionOptions(
        epochs=epochs,
        learning_rate=learning_rate,
        sparsity=sparsity,
        pattern=pattern,
        num_clusters=clusters,
        keep_float=tuple(keep_float),
        keep_worst=keep_worst,
        page=None if report is None else Path(report),
    )
    source: Any = source_of(data, split_folders, join_classes)
    place = Path(bundle)
    return Compressed(compress_bundle(place, method, data=source, options=options, skip_bad=skip_bad, force=force))


class Imported(Result):
    """Somebody else's network as a bundle, see ``toolkit.import_model``."""

    @property
    def place(self) -> Path | None:
        """The bundle's folder for what is beside the SavedModel."""
        return place_beside(self)

    def _lines(self) -> list[str]:
        return [f"{self['model']}: {len(self['labels'])} classes", self["bundle"]]


@call
def import_model(
    file: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | Sequence[str],
    preprocessing: "str | Preprocessing | None" = None,
    data: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    formats: Sequence[str] = FORMATS,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Imported:
    """Make a bundle of a classifier that somebody else trained with Keras.

    Args:
        file: a ``.keras`` or ``.h5`` file of a whole model, such as Teachable Machine's ``keras_model.h5``. It may
            answer logits, probabilities, or one sigmoid.
        out: the bundle, ``saved_models/NAME``.
        labels: class names in the order of the outputs: a file, one a line, numbered or not; or a list.
        preprocessing: what it was trained with, see ``toolkit.finetune``; by default as its layers tell.
        data: pictures of its classes: engines are compared on some, the int8 file is calibrated on others. Without them
            engines are compared on noise, and there is no int8 file.
        examples: pictures to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        formats: files of the bundle, see ``toolkit.finetune``.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``{"bundle", "model", "labels", "parity"}``: by engine, the largest difference in probability from Keras.

    Raises:
        UserError: no such network, labels that do not fit it, or nothing tells its preprocessing.
    """
    from toolkit.workflows.steps import ExportOptions, import_network

    chosen = ExportOptions(Path(out), examples, force, tuple(formats))
    return Imported(
        import_network(
            Path(file),
            chosen,
            labels=labels,
            preprocessing=preprocessing,
            data=None if data is None else source_of(data, split_folders, join_classes),
            skip_bad=skip_bad,
        )
    )


@call
def export(
    bundle: str | os.PathLike[str],
    *,
    onnx: str | os.PathLike[str] | None = None,
    tf_serving: str | os.PathLike[str] | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Write a bundle's network for other runtimes, or what other servers need.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        onnx: write this ``.onnx`` file: pixels in, probabilities out.
        tf_serving: write files for TensorFlow Serving, KServe and OpenVINO Model Server to this new folder instead.
        images: compare ONNX Runtime with Keras on these too.

    Returns:
        ``{"file", "bytes", "opset", "difference", "n"}``; of other servers ``{"directory", "files", "batching",
        "milliseconds"}``.

    Raises:
        UserError: ONNX is not installed, the network cannot be written, or the answers differ.
    """
    if (onnx is None) == (tf_serving is None):
        raise UserError("expected one of --onnx FILE.onnx and --tf-serving DIR")
    if tf_serving is not None:
        from toolkit.workflows.deploy import export_tf_serving

        if images:
            raise UserError("--images are for --onnx; leave them out")
        return export_tf_serving(Path(bundle), Path(tf_serving))
    from toolkit.workflows.onnx import export_onnx

    assert onnx is not None
    return export_onnx(Path(bundle), Path(onnx), images=[Path(image) for image in images])


@call
def benchmark(bundle: str | os.PathLike[str]) -> dict[str, Any]:
    """Time every engine on this machine and recommend one.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.

    Returns:
        ``{"bundle", "held_out", "rows", "processor_share", "recommended", "verdict"}``, see
        ``toolkit.inference.benchmark_bundle``.
    """
    from toolkit.inference import benchmark_bundle

    return benchmark_bundle(Path(bundle))


@call
def verify(bundle: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Give the same pictures to every engine and compare the answers.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        images: files.

    Returns:
        ``{"bundle", "rows"}``, see ``toolkit.inference.verify_bundle``.
    """
    from toolkit.inference import verify_bundle

    return verify_bundle(Path(bundle), [Path(image) for image in images])


@call
def list_bundles(directory: str | os.PathLike[str] = "saved_models") -> list[dict[str, Any]]:
    """List every version of the bundles in a directory, with its accuracy and its engines.

    Args:
        directory: holds ``NAME/VERSION``.

    Returns:
        Rows as ``toolkit.inference.bundles.describe_bundles`` gives them.
    """
    from toolkit.inference.bundles import describe_bundles

    return describe_bundles(Path(directory))


@call
def answer_examples(bundle: str | os.PathLike[str], *, engine: str = "auto") -> dict[str, Any]:
    """Classify the pictures that a bundle brings, beside their true labels.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        engine: what runs the network, see ``toolkit.Predictor.load``.

    Returns:
        ``{"bundle", "engine", "rows"}``.
    """
    from toolkit.inference import examples

    return examples.answer_examples(Path(bundle), engine)


@call
def recommend_engine(bundle: str | os.PathLike[str], engine: str, *, force: bool = False) -> dict[str, str]:
    """Make an engine the one that ``"recommended"`` means for a bundle, at once also where it is served.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        engine: such as ``"litert-int8"``.
        force: even one whose accuracy was not measured, or was too low, when the bundle was written.

    Returns:
        ``{"bundle", "recommended"}``.
    """
    from toolkit.inference import bundles

    return {"bundle": str(bundles.recommend_engine(Path(bundle), engine, force=force)), "recommended": engine}


@call
def verify_version(bundle: str | os.PathLike[str]) -> dict[str, Any]:
    """Compare a version's files with their checksums, and its engines' answers with its network's.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.

    Returns:
        ``{"bundle", "files", "pictures", "rows", "objections"}``.
    """
    from toolkit import inference

    return inference.verify_version(Path(bundle))


@call
def promote_version(bundle: str | os.PathLike[str], *, label: str = "stable") -> dict[str, Any]:
    """Have a label mean a version.

    Args:
        bundle: one version; of ``saved_models/NAME`` the canary's, else the highest.
        label: ``"stable"``, ``"canary"``, or any other name.

    Returns:
        The version's folder, the label, and the version that it meant before.
    """
    from toolkit.bundle import promote

    return promote(Path(bundle), label)


@call
def roll_back_version(bundle: str | os.PathLike[str], *, label: str = "stable", remove: bool = False) -> dict[str, Any]:
    """Have a label mean the version again that it meant before.

    Args:
        bundle: ``saved_models/NAME``.
        label: see ``promote_version``.
        remove: take the label away instead.

    Returns:
        As ``promote_version``.
    """
    from toolkit.bundle import roll_back

    return roll_back(Path(bundle), label, remove=remove)


@call
def prune_bundles(bundle: str | os.PathLike[str], *, keep: int = 3, dry_run: bool = False) -> dict[str, Any]:
    """Remove a bundle's old versions, but none with a label or to roll back to.

    Args:
        bundle: ``saved_models/NAME``.
        keep: highest versions.
        dry_run: say what would be removed, and remove nothing.

    Returns:
        ``{"removed", "labelled", …}``, paths.
    """
    from toolkit.bundle import prune

    return prune(Path(bundle), keep, dry_run=dry_run)


def serve(
    directory: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    engine: str = "auto",
    workers: int = 1,
    max_queue: int = 64,
    max_body_mb: int = 64,
    max_pictures: int = 256,
    max_megapixels: int = 256,
    keep_alive: int = 75,
    grace: int = 30,
    api_keys: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    cors: Sequence[str] = (),
    grpc_port: int | None = None,
    access_log: bool = False,
    log_format: Literal["text", "json"] = "text",
) -> None:
    """Answer every bundle over HTTP, until interrupted.

    Args:
        directory: holds bundles.
        host: address to listen on; ``"0.0.0.0"`` for every interface.
        port: 0 takes any free one.
        engine: what runs the networks, see ``toolkit.Predictor.load``.
        workers: processes behind the port, each with all bundles in memory.
        max_queue: requests of one bundle that are worked on or wait; one more is told to come again.
        max_body_mb: of a request's body.
        max_pictures: in one request.
        max_megapixels: of all pictures of a request together.
        keep_alive: seconds that a connection without requests is kept.
        grace: seconds that requests in progress get to finish at the end.
        api_keys: file of hashed keys, of which a request must show one.
        tls_cert: answer HTTPS with this certificate.
        tls_key: its private key, if it is in another file.
        cors: origins whose pages may call the server; ``"*"`` for any.
        grpc_port: speak gRPC too, there.
        access_log: log a line for every request.
        log_format: ``"json"`` for one object a line.
    """
    from toolkit.serving import ServerOptions
    from toolkit.serving import serve as run_server

    options = ServerOptions(
        workers=workers,
        max_queue=max_queue,
        max_body_bytes=max_body_mb << 20,
        max_pictures=max_pictures,
        max_pixels=max_megapixels * 10**6,
        keep_alive=keep_alive,
        grace=grace,
        api_keys=_path(api_keys),
        tls_cert=_path(tls_cert),
        tls_key=_path(tls_key),
        cors=tuple(cors),
        access_log=access_log,
        log_format=log_format,
        grpc_port=grpc_port,
    )
    run_server(Path(directory), host=host, port=port, engine=engine, options=options)


def _path(file: str | os.PathLike[str] | None) -> Path | None:
    return None if file is None else Path(file)


def demo(
    directory: str | os.PathLike[str] = "saved_models",
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    engine: str = "auto",
    root_path: str = "",
    auth: str | os.PathLike[str] | None = None,
    mcp: bool = False,
) -> None:
    """Open the web demo, until interrupted.

    Args:
        directory: holds bundles.
        host: address to listen on; ``"0.0.0.0"`` for every interface.
        port: by default ``$PORT``, or 7860.
        engine: what runs the networks, see ``toolkit.Predictor.load``.
        root_path: where a reverse proxy puts the page.
        auth: let in only whom this file names, by lines ``USER:PASSWORD``.
        mcp: offer the page's endpoints as tools of an MCP server too.
    """
    from toolkit.demo import Access, launch

    access = Access(_path(auth), mcp)
    launch(Path(directory), host=host, port=port, engine=engine, root_path=root_path, access=access)
