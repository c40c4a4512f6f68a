"""The network as OpenVINO Model Server takes it: pixels in, probabilities out, in OpenVINO's own format."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import FLOAT_LITERT, Manifest, verify_files
from toolkit.engines import ENGINES, open_engine
from toolkit.errors import UserError
from toolkit.export.parity import FLOAT_TOLERANCE, noise
from toolkit.lazy import import_openvino
from toolkit.spec import Preprocessing

log = logging.getLogger("toolkit")

# ITU-R 601 luma, see ``toolkit.data.pixels.decode.luma``: exact in float32.
_LUMA, _HALF, _WHOLE = (19595.0, 38470.0, 7471.0), 32768.0, 65536.0


def why_not(version_dir: Path) -> str:
    """Say why a bundle cannot be written for OpenVINO Model Server; empty where it can."""
    if not ENGINES["openvino"].is_installed:
        return "OpenVINO is not installed: pip install 'toolkit[openvino]'"
    if not (version_dir / FLOAT_LITERT).exists():
        return f"the bundle has no {FLOAT_LITERT}, as an ensemble has none"
    return ""


def write_model(version_dir: Path, manifest: Manifest, file: Path) -> dict[str, Any]:
    """Write a bundle's network, with what comes before and after it, as ``.xml`` and ``.bin``.

    It takes ``pixels``, uint8 RGB (batch, height, width, 3) of the network's size, and answers ``probabilities``, and
    ``novelty`` where the file does. The int8 file is taken where the bundle recommends it and it answers alike, else
    the float one.

    Args:
        version_dir: the bundle's version.
        manifest: of it.
        file: where to write, ``.xml``.

    Returns:
        ``{"engine", "difference"}``: the engine whose answers it gives, and the largest difference from them.

    Raises:
        UserError: its file is missing or damaged, or it does not answer as the engine does.
    """
    names = ["openvino"]
    if manifest.recommended_engine.endswith("-int8") and (version_dir / ENGINES["openvino-int8"].file).exists():
        names.insert(0, "openvino-int8")
    for name in names:
        difference = _write(name, version_dir, manifest, file)
        if difference <= FLOAT_TOLERANCE:
            return {"engine": name, "difference": difference}
        # OpenVINO may round an int8 network's sums elsewhere once they stand in another graph.
        log.info("answers of %s differ by %.2g in OpenVINO Model Server's form", name, difference)
    raise UserError(
        f"{version_dir}: its answers in OpenVINO Model Server's form differ by {difference:.2g}; if `toolkit bundles "
        f"verify {version_dir}` finds the files as they were written, export the bundle again"
    )


def _write(name: str, version_dir: Path, manifest: Manifest, file: Path) -> float:
    """Write an engine's file in the server's form; the largest difference in probability from the engine."""
    openvino = import_openvino()

    verify_files(version_dir, manifest, (ENGINES[name].file,))
    core, pixels = openvino.Core(), noise(manifest.preprocessing)
    model = _from_pixels(core.read_model(version_dir / ENGINES[name].file), manifest)
    openvino.save_model(model, file, compress_to_fp16=False)
    written = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = open_engine(name, version_dir, manifest.preprocessing).probabilities(pixels)
    return float(np.abs(written(pixels)["probabilities"] - expected).max())


def _from_pixels(model: Any, manifest: Manifest) -> Any:
    openvino = import_openvino()
    ops = openvino.opset8

    pixels = ops.parameter([-1, *manifest.preprocessing.size, 3], np.uint8, name="pixels")
    pixels.output(0).tensor.set_names({"pixels"})
    (taken,) = model.inputs
    taken.replace(_normalised(pixels, manifest.preprocessing).output(0))
    logits, *novelty = [result.input_value(0) for result in model.get_results()]
    answers = {"probabilities": ops.softmax(logits, 1)}
    if novelty:  # int8 files of retrained networks once had none
        answers["novelty"] = ops.squeeze(novelty[0], np.array([1]))
    for name, node in answers.items():
        node.output(0).tensor.set_names({name})
    return openvino.Model([ops.result(node) for node in answers.values()], [pixels], manifest.name)


def _normalised(pixels: Any, preprocessing: Preprocessing) -> Any:
    ops = import_openvino().opset8

    values = ops.convert(pixels, np.float32)
    if preprocessing.channel_order == "grey":
        weighed = ops.reduce_sum(ops.multiply(values, np.array(_LUMA, np.float32)), np.array([3]), keep_dims=True)
        values = ops.floor(ops.multiply(ops.add(weighed, np.float32(_HALF)), np.float32(1 / _WHOLE)))
    elif preprocessing.channel_order == "bgr":
        values = ops.gather(values, np.array([2, 1, 0]), np.array(3))
    factor, offset = (np.asarray(numbers, np.float32) for numbers in preprocessing.affine())
    return ops.add(ops.multiply(values, factor), offset)
