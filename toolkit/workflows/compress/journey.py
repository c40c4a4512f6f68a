"""The way from a bundle to its compressed next version."""

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.bundle import Manifest, find_bundle, litert_file, read_manifest, read_pictures, require_network
from toolkit.compress import METHODS
from toolkit.compress.changes import recipe_digest
from toolkit.compress.job import require_optimization
from toolkit.compress.litert import require_integer, require_layers
from toolkit.errors import UserError, unknown_name
from toolkit.files import require_place, require_writable
from toolkit.network import load_network
from toolkit.progress import step
from toolkit.workflows.compress.options import COMPRESSION_METHODS, CompressionOptions
from toolkit.workflows.compress.pictures import DividedPictures, divide
from toolkit.workflows.compress.publishing import has_already, unchanged, write
from toolkit.workflows.compress.source import Compressed, Request, Source
from toolkit.workflows.steps import scan

log = logging.getLogger("toolkit")


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | os.PathLike[str],
    options: CompressionOptions | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Compress a bundle's network and write the next version of the bundle with it.

    Where the bundle has the very file already, nothing is written, and with no report to make that is said at once.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is compressed.
        method: one of ``COMPRESSION_METHODS``, in any case.
        data: the pictures it was trained on: those that taught it calibrate and train on, validation pictures or a
            fifth of those choose among epochs, and the others judge.
        options: of the method.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.

    Returns:
        ``{"bundle", "method", "written", "bytes", "float_bytes"}``, the last None where nothing was done to a bundle
        without a float LiteRT file; and unless nothing was done,
        ``{"top1", "float_top1", "kept_float", "changes", "report"}``; the last two as ``toolkit.compress.Changes`` and
        ``toolkit.compress.compression_report`` have them.

    Raises:
        UserError: bad input, more top-1 lost than the budget of a bundle allows, or the network was not changed as
            was asked.
    """
    options = options or CompressionOptions()
    method = method.lower()
    if method not in COMPRESSION_METHODS:
        raise UserError(unknown_name("method", method, list(COMPRESSION_METHODS)))
    if method not in METHODS:  # before all pictures are read
        require_optimization()
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    keras_file = require_network(version_dir, manifest)
    require_writable(version_dir.parent)
    if options.page:
        require_place(options.page)
    pictures = divide(scan(data, skip_bad, manifest.labels), read_pictures(version_dir, manifest))
    recipe = _recipe(manifest, method, pictures, options)
    made = _made(version_dir, manifest, method, recipe)
    if made and not options.page:
        return unchanged(version_dir, method)
    with step("loading the network"):
        model = load_network(keras_file)
    source = Source(version_dir, manifest, model)
    if made:
        answering = source.answering(model)
        kept = require_integer(made, answering, [layer.name for layer in model.layers]) if method == "int8" else ()
        compressed = Compressed(model, {method: made}, kept)
    else:
        compressed = _compress(source, method, pictures, options)
    if has_already(manifest, compressed, model) and not options.page:
        return unchanged(version_dir, method)
    return write(source, compressed, pictures, Request(method, options, recipe, force))


def _recipe(manifest: Manifest, method: str, pictures: DividedPictures, options: CompressionOptions) -> str | None:
    """Digest what a file made after training follows from; None for methods that train on."""
    if method not in METHODS:
        return None
    kept = [*options.keep_float, *([f"the worst {options.keep_worst}"] if options.keep_worst else [])]
    return recipe_digest(manifest.weights_digest, method, manifest.preprocessing, pictures.calibration, keep_float=kept)


def _made(version_dir: Path, manifest: Manifest, method: str, recipe: str | None) -> bytes | None:
    """Read the file that the method would make, where the bundle has it, whole."""
    file = version_dir / litert_file(method)
    if recipe is None or manifest.recipes.get(method) != recipe or not file.is_file():
        return None
    content = file.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == manifest.files.get(litert_file(method)) else None


def _compress(source: Source, method: str, pictures: DividedPictures, options: CompressionOptions) -> Compressed:
    from toolkit.compress import cluster, prune, quantize
    from toolkit.compress.retrain import quantized_training

    steps = method.split("+")
    model, preprocessing = source.model, source.manifest.preprocessing
    require_layers(model, options.keep_float)
    train, validation = pictures.training, pictures.choosing
    training: dict[str, Any] = {"preprocessing": preprocessing, "train": train, "retraining": options.retraining}
    network = model
    if "prune" in steps:
        network = prune(network, options.pruning, **training)
    if "cluster" in steps:
        network = cluster(network, replace(options.clustering, preserve_sparsity="prune" in steps), **training)
    last: Any = steps[-1]
    if last in ("prune", "cluster"):
        return Compressed(network)
    calibration: dict[str, Any] = {"preprocessing": preprocessing, "calibration": pictures.calibration}
    if network is model and last in ("int8", "int16x8"):
        calibration["float_file"] = source.float_file
    if last not in ("int8", "qat"):
        with step(f"quantizing by {last}"):
            content = quantize(source.answering(network), last, **calibration)
        return Compressed(network, {last: content})
    kept = options.keep_float
    if options.keep_worst:
        from toolkit.compress import float_layers, layer_sensitivity

        ranking = layer_sensitivity(network, pictures.calibration, preprocessing=preprocessing)
        kept += float_layers(network, ranking, options.keep_worst)
    facts = None
    if last == "qat":
        if set(validation.paths) <= set(pictures.calibration.paths):
            log.info("training pictures choose the epoch: val_accuracy is of pictures that the network knows")
        preserve: Any = {"qat": "none", "prune+qat": "sparsity", "cluster+qat": "clusters"}.get(method, "both")
        content, facts = quantized_training(
            source.answering(network), validation=validation, preserve=preserve, keep_float=kept, **training
        )
    else:
        with step("quantizing to int8"):
            content = quantize(source.answering(network), "int8", keep_float=kept, **calibration)
    kept_float = require_integer(content, source.answering(network), kept)
    return Compressed(network, {"int8": content}, kept_float, facts)
