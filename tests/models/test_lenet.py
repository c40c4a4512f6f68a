"""LeNet-5 and its colour sibling, layer by layer against hand-derived figures."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import layer_table

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # 6·(5·5·1+1), 16·(5·5·6+1), 120·(400+1), 84·(120+1), 10·(84+1)
        ("lenet5", [156, 2_416, 48_120, 10_164, 850]),
        # 8·(5·5·3+1), 16·(5·5·8+1), …; the notes print 208, 416, 48,001, 10,081 and 841
        ("lenet5_rgb", [608, 3_216, 48_120, 10_164, 850]),
    ],
)
def test_parameters_layer_by_layer(name, counts):
    assert [row.params for row in layer_table(toolkit.create_model(name)) if row.params] == counts


def test_colour_activations_are_those_of_the_notes():
    rows = layer_table(toolkit.create_model("lenet5_rgb"))
    table = {row.name: (row.output_shape, row.activation_size) for row in rows}
    assert table == {
        "input": ((32, 32, 3), 3_072),
        "stage1_conv": ((28, 28, 8), 6_272),
        "stage1_pool": ((14, 14, 8), 1_568),
        "stage2_conv": ((10, 10, 16), 1_600),
        "stage2_pool": ((5, 5, 16), 400),
        "head_flatten": ((400,), 400),
        "head_fc1": ((120,), 120),
        "head_fc2": ((84,), 84),
        "head_logits": ((10,), 10),
    }


@pytest.mark.parametrize(("name", "reduce", "maps"), [("lenet5", np.mean, 6), ("lenet5_rgb", np.max, 8)])
def test_pooling_is_average_or_maximum(name, reduce, maps):
    model = toolkit.create_model(name)
    pool = keras.Model(model.get_layer("stage1_conv").output, model.get_layer("stage1_pool").output)
    x = RNG.normal(size=(1, 28, 28, maps)).astype("float32")
    expected = reduce(x.reshape(1, 14, 2, 14, 2, maps), axis=(2, 4))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(pool(x)), expected, rtol=0, atol=1e-6)


def test_smallest_picture_is_sixteen_pixels():
    assert toolkit.create_model("lenet5", input_shape=(16, 16, 1)).get_layer("stage2_pool").output.shape[1:3] == (1, 1)
    with pytest.raises(toolkit.errors.UserError, match="lenet5_rgb needs pictures of at least 16×16"):
        toolkit.create_model("lenet5_rgb", input_shape=(15, 32, 3))
