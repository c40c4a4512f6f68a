"""ONNX export of a bundle's network, held against Keras before it is written."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import (
    EXAMPLES,
    Manifest,
    find_bundle,
    read_manifest,
    require_network,
)
from toolkit.errors import UserError
from toolkit.files import require_place, write_file
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.progress import step

#: Largest difference in probability from the Keras network with which the file is written.
TOLERANCE = 1e-4
_INSTALL = "pip install 'toolkit[onnx]'"
_NUM_NOISE, _NUM_EXAMPLES = 4, 28


def export_onnx(bundle: str | Path, file: str | Path, *, images: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Write a bundle's network as an ONNX file, if ONNX Runtime answers with it what Keras answers.

    The file takes ``pixels``, uint8 RGB ``(batch, height, width, 3)`` of the network's size, and answers float32
    ``logits`` and ``probabilities``, both ``(batch, classes)``. Its metadata tells, as JSON, how a picture becomes
    pixels and what the answers mean: see ``toolkit.engines.onnx_graph.metadata``.

    Args:
        bundle: ``NAME`` or ``NAME/VERSION``; its ``model.keras`` is what is written.
        file: what to write, ``.onnx``; an older one is replaced.
        images: pictures to compare the answers on, beside noise and the examples in the bundle.

    Returns:
        ``{"file", "bytes", "opset", "difference", "n"}``: the largest difference in probability from Keras, over
        ``n`` pictures.

    Raises:
        UserError: ``onnx`` or ``onnxruntime`` is not installed, the network has a layer that cannot be written, the
            answers differ by more than ``TOLERANCE``, or the file cannot be written.
    """
    file = Path(file)
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {' and '.join(missing)}, not installed here: {_INSTALL}")
    if file.suffix != ".onnx":
        raise UserError(f"{file}: expected a name that ends in .onnx")
    require_place(file)
    from toolkit.data.feed.arrays import load_pixels
    from toolkit.engines.onnx_graph import OPSET, to_onnx
    from toolkit.engines.runtimes import KerasEngine

    version_dir = find_bundle(bundle, shipped=True)
    manifest = read_manifest(version_dir)
    preprocessing = manifest.preprocessing
    pictures = [*sorted((version_dir / EXAMPLES).glob("*"))[:_NUM_EXAMPLES], *images]
    pixels = np.random.default_rng(0).integers(0, 256, (_NUM_NOISE, *preprocessing.size, 3), np.uint8)
    if pictures:  # read before the network is loaded and written
        pixels = np.concatenate([pixels, load_pixels([str(path) for path in pictures], preprocessing)])
    model = load_network(require_network(version_dir, manifest))
    with step("writing the network"):
        answering = _with_novelty(model, version_dir, manifest)
        content = to_onnx(answering, preprocessing, labels=manifest.labels, reject_below=manifest.reject_below)
    with step("comparing with Keras"):
        expected = KerasEngine(model, preprocessing).probabilities(pixels)
        difference = float(np.abs(_in_onnx_runtime(content, pixels) - expected).max())
    if not difference <= TOLERANCE:  # so that NaN is refused too
        raise UserError(f"{file}: not written, ONNX Runtime differs from Keras by {difference:.2g} in probability")
    write_file(file, content)
    return {"file": str(file), "bytes": len(content), "opset": OPSET, "difference": difference, "n": len(pixels)}


def _with_novelty(model: "keras.Model", version_dir: Path, manifest: Manifest) -> "keras.Model":
    """Let the network answer novelty where the bundle's own forms do."""
    from toolkit.transfer.heads.novelty import Novelty
    from toolkit.transfer.stages import with_novelty

    novelty = Novelty.of_bundle(version_dir, manifest)
    return model if novelty is None else with_novelty(model, novelty)


def _in_onnx_runtime(content: bytes, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"pixels": pixels})[0]
