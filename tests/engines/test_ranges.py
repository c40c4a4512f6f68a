import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from toolkit.engines.convert import layers_named_in, to_litert
from toolkit.engines.ranges import with_ranges
from toolkit.errors import UserError


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)


def test_ranges_in_an_int8_file_are_those_of_the_networks_own_answers(residual, inputs):
    """Also before an addition, whose sum TensorFlow's calibrator counts as its operand's: half as wide again."""
    content = to_litert(residual, quantization="int8", calibration=[inputs[:2], inputs[2:]])
    names = [layer.name for layer in residual.layers]
    found = {}
    for tensor in Interpreter(model_content=content).get_tensor_details():
        scales, zeros = (tensor["quantization_parameters"][key] for key in ("scales", "zero_points"))
        named = layers_named_in(tensor["name"], names)
        if named and tensor["dtype"] == np.int8 and len(scales) == 1 and tensor["shape_signature"][0] == -1:
            found[named[-1]] = float(scales[0]) * (-128 - int(zeros[0])), float(scales[0]) * (127 - int(zeros[0]))
    added = [name for name in found if name.endswith("bn2")]
    assert len(added) >= 7
    answers = keras.Model(residual.input, [residual.get_layer(name).output for name in added])(inputs)
    for name, answer in zip(added, answers, strict=True):
        low, high = float(keras.ops.min(answer)), float(keras.ops.max(answer))
        np.testing.assert_allclose(found[name], (low, high), atol=0.01 * (high - low), err_msg=name)


def test_pictures_are_counted(residual, inputs, told):
    with_ranges(to_litert(residual), [inputs[:2], inputs[2:]])
    assert [row[1:] for row in told if row[0] == "learning ranges for integers"] == [(n, 5) for n in range(1, 6)]


def test_a_network_that_answers_no_numbers_is_named(inputs):
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3, name="stem_conv")], name="net")
    model.layers[0].kernel.assign(np.full(model.layers[0].kernel.shape, np.nan))
    with pytest.raises(UserError, match=r"nan…nan for the calibration pictures, not numbers"):
        with_ranges(to_litert(model), [inputs])
