"""Calls that run a bundle: measure it, compare and time its engines, write it for others, serve it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from toolkit.api.calls import call
from toolkit.api.options import source_of
from toolkit.api.results import Evaluated
from toolkit.errors import UserError, unknown_name


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
    imagenet: str | os.PathLike[str] | None = None,
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
        imagenet: the folder of ImageNet's devkit of 2012, where ``data`` is one of its validation pictures, flat as
            they come, and the bundle's labels begin with WordNet ids, as ``n01440764 tench``. Folders with such ids as
            names need none.

    Returns:
        ``result["top1"]``, a fraction, ``result["per_class"]``, ``result["confusions"]`` and more, see
        ``toolkit.inference.evaluate_bundle``; ``result.report()``.

    Raises:
        UserError: no such bundle, pictures of other classes, or unreadable ones.
    """
    from toolkit.bundle import read_manifest, shipped_bundle
    from toolkit.data.scan.folder import require_classes
    from toolkit.data.sources.source import as_source
    from toolkit.inference import Predictor
    from toolkit.inference.choice import require_engine
    from toolkit.inference.evaluate import SUBSETS, evaluate_bundle
    from toolkit.inference.predictor import locate_bundle

    if subset not in (None, *SUBSETS):
        raise UserError(unknown_name("subset", str(subset), list(SUBSETS)))
    if not Path(data).exists():  # before the bundle is looked for, on the hub perhaps
        hint = "; the bundle comes first, then the pictures" if shipped_bundle(data) else ""
        raise UserError(f"{os.fspath(data)}: no such folder or file{hint}")
    if imagenet is not None and not Path(imagenet).is_dir():
        raise UserError(f"{os.fspath(imagenet)}: no such folder; --imagenet wants ILSVRC2012_devkit_t12, unpacked")
    require_engine(engine)
    source = as_source(source_of(data, split_folders, join_classes))
    if imagenet is not None:
        source = replace(source, devkit=Path(imagenet))
    located = [locate_bundle(each) for each in (bundle, *others)]
    require_classes(source, read_manifest(located[0]).labels)  # before an engine is loaded
    predictor = Predictor.load_several(located, engine, crops=crops, scales=scales)
    report = evaluate_bundle(predictor, source, subset=subset, skip_bad=skip_bad)
    return Evaluated(report | {"crops": crops, "scales": list(scales)})


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


def serve(
    directory: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    engine: str = "auto",
    workers: int = 1,
    max_queue: int | None = None,
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
        max_queue: requests of one bundle that are worked on or wait, shared out among the workers; one more is told to
            come again. Under full load each waits for as many others, ``max_queue`` divided by the answers a second.
            By default 32, and at least 24 a worker.
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
    teach: bool = True,
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
        teach: let visitors teach networks of their own.
    """
    from toolkit.demo import Access, launch

    access = Access(_path(auth), mcp, teach)
    launch(Path(directory), host=host, port=port, engine=engine, root_path=root_path, access=access)
