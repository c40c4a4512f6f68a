"""Post-training quantization to LiteRT files."""

from collections.abc import Collection, Sized
from typing import Literal, get_args

from toolkit.compress.examples import Examples, Pictures, spread
from toolkit.compress.litert import compact, require_integer, require_layers
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network import as_classifier
from toolkit.progress import step
from toolkit.spec import Preprocessing

Method = Literal["dynamic", "float16", "int8", "int16x8"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Calibration pictures; many more only widen the ranges by outliers.
NUM_CALIBRATION = 200


def quantize(
    model: "keras.Model",
    method: Method,
    *,
    preprocessing: Preprocessing,
    calibration: Examples | Pictures | None = None,
    keep_float: Collection[str] = (),
    float_file: bytes | None = None,
) -> bytes:
    """Quantize a trained network after training.

    Args:
        model: a classifier, whose logits the file answers; a softmax at its end is left out.
        method: ``"dynamic"`` stores weights in int8 and computes activations in float; ``"float16"`` stores weights
            in half precision; ``"int8"`` computes in int8 throughout, with one scale per channel of a convolution;
            ``"int16x8"`` has int8 weights and int16 activations, nearly as exact as float and slower than int8.
        preprocessing: what the network was trained with; calibration pictures pass through it.
        calibration: *training* pictures for ``"int8"`` and ``"int16x8"``, of which ``NUM_CALIBRATION`` are drawn
            evenly. Their labels are not looked at: paths do, or an array of uint8 pixels or normalised floats.
        keep_float: for ``"int8"``, names of layers to leave in float (see ``layer_sensitivity``), or of a class for all
            of a kind. Layers whose class says ``keep_float`` stay in float anyhow: the divisor of a local response
            normalisation has no int8 form; so do small heads, see ``toolkit.engines.convert.float_head``.
        float_file: the network's float LiteRT file where it is at hand, which saves converting it again.

    Returns:
        A LiteRT file: normalised float32 input of any batch size, float32 logits out.

    Raises:
        UserError: an unknown method, an integer method without calibration pictures or with floats in another range
            than the network was trained on, a network that cannot be computed in int16x8, or an int8 file in which
            other layers than those stayed in float.
    """
    from toolkit.engines.convert import to_litert

    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if keep_float and method != "int8":
        raise UserError(f"keep_float is for int8, got it with {method}")
    model = as_classifier(model)
    keep_float = require_layers(model, keep_float)
    if method in ("dynamic", "float16"):
        return to_litert(model, quantization=method)
    if calibration is None or (isinstance(calibration, Sized) and not len(calibration)):
        raise UserError(f"{method} needs training pictures to learn activation ranges from; pass data")
    with step("reading pictures for calibration"):
        inputs = iter([spread(calibration, preprocessing, NUM_CALIBRATION)])  # nobody's any more once they were read
    content = to_litert(model, quantization=method, calibration=inputs, keep_float=keep_float, float_file=float_file)
    if method == "int8":
        require_integer(content, model, keep_float)
    return compact(content, [layer.name for layer in model.layers])
