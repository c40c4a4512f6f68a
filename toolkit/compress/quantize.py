"""Post-training quantization to LiteRT files."""

from typing import TYPE_CHECKING, Literal, get_args

from toolkit.data.arrays import calibration_batches
from toolkit.data.split import Subset
from toolkit.spec import Preprocessing, UserError

if TYPE_CHECKING:
    import keras

Method = Literal["dynamic", "float16", "int8"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Calibration pictures for int8; many more only widen the ranges by outliers.
NUM_CALIBRATION = 200


def quantize(
    model: "keras.Model", method: Method, *, preprocessing: Preprocessing, calibration: Subset | None = None
) -> bytes:
    """Quantize a trained network after training.

    Args:
        model: a classifier that answers logits.
        method: ``"dynamic"`` stores weights in int8 and computes activations in float; ``"float16"`` stores weights
            in half precision; ``"int8"`` computes in int8 throughout, with one scale per output channel.
        preprocessing: what the network was trained with; calibration pictures pass through it.
        calibration: *training* pictures for ``"int8"``, of which ``NUM_CALIBRATION`` are drawn evenly.

    Returns:
        A LiteRT file: normalised float32 input of any batch size, float32 logits out.

    Raises:
        UserError: an unknown method, or int8 without calibration pictures.
    """
    from toolkit.engines.convert import to_litert

    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if method != "int8":
        return to_litert(model, quantization=method)
    if calibration is None or not len(calibration):
        raise UserError("int8 needs training pictures to learn activation ranges from; pass data")
    batches = calibration_batches(calibration, preprocessing, NUM_CALIBRATION)
    return to_litert(model, quantization="int8", calibration=batches)
