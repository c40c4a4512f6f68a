"""ONNX operators built anew in Keras: small graphs, held against ONNX Runtime."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from toolkit.factory.graphs import check_answers, open_graph
from toolkit.network import as_classifier, feature_tensor, split_rescaling
from toolkit.spec import Preprocessing

RNG = np.random.default_rng(0)
SIDE = 12
END = [("GlobalAveragePool", [], {}), ("Flatten", [], {}), ("Gemm", [(8, 5), (5,)], {})]


def weights(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def write(path, steps, *, shape=(None, 3, SIDE, SIDE), opset=17, outputs=None):
    """A chain of operators, (kind, further inputs, attributes): arrays, shapes of random ones, or names t0, t1 …"""
    nodes, constants, before = [], [], "x"
    for number, (kind, others, attributes) in enumerate(steps):
        names = [before]
        for place, other in enumerate(others):
            if isinstance(other, str):
                names.append(other)
                continue
            name = f"w{number}_{place}"
            array = weights(*other) if isinstance(other, tuple) else other
            constants.append(numpy_helper.from_array(array, name))
            names.append(name)
        names = names[1:] if attributes.pop("alone", False) else names
        before = f"t{number}"
        answers = [before, *(f"{before}_{place}" for place in range(1, attributes.pop("answers", 1)))]
        nodes.append(helper.make_node(kind, names, answers, name=f"/block/{kind}_{number}", **attributes))
    value = helper.make_tensor_value_info
    ends = [value(name, 1, None) for name in outputs or [before]]
    graph = helper.make_graph(nodes, "theirs", [value("x", 1, shape)], ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return path


def opened(path, size=None):
    """The network, which answers as ONNX Runtime does with the file."""
    file = open_graph(path, size)
    inputs = RNG.normal(0, 1, (3, *file.network.input_shape[1:])).astype(np.float32)
    assert check_answers(path, file, inputs) < (0.05 if file.quantized else 0.01 if file.halved else 1e-5)
    return file


def kinds(network):
    return Counter(type(layer).__name__ for layer in network.layers)


CONV = ("Conv", [(8, 3, 3, 3), (8,)], {"pads": [1, 1, 1, 1]})
RESIZED = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
NORM = ("BatchNormalization", [(8,), (8,), (8,), np.linspace(0.5, 2, 8, dtype=np.float32)], {})
SCALAR = {number: np.float32(number) for number in (0, 0.5, 1, 1e-6, 2, 2**0.5, 3, 6)}
#: Chains that exporters write for one layer, and that layer.
TOGETHER = {
    "gelu of torch": (
        *("Activation", CONV, ("Div", [SCALAR[2**0.5]], {}), ("Erf", [], {}), ("Add", [SCALAR[1]], {})),
        *(("Mul", ["t0"], {}), ("Mul", [SCALAR[0.5]], {})),
    ),
    "hard swish of torch": (
        *("Activation", CONV, ("Add", [SCALAR[3]], {}), ("Clip", [SCALAR[0], SCALAR[6]], {}), ("Mul", ["t0"], {})),
        ("Div", [SCALAR[6]], {}),
    ),
    "layer normalisation of torch": (
        *("LayerNormalization", CONV, ("ReduceMean", [], {"axes": [1]}), ("Sub", ["t0", "t1"], {"alone": True})),
        *(("Pow", [SCALAR[2]], {}), ("ReduceMean", [], {"axes": [1]}), ("Add", [SCALAR[1e-6]], {}), ("Sqrt", [], {})),
        *(("Div", ["t2", "t6"], {"alone": True}), ("Mul", [(8, 1, 1)], {}), ("Add", [(8, 1, 1)], {})),
    ),
    "unit length of TensorFlow": (
        *("UnitLength", CONV, ("GlobalAveragePool", [], {}), ("Flatten", [], {}), ("Mul", ["t2"], {})),
        *(("ReduceSum", [ints(-1)], {}), ("Max", [np.float32(1e-12)], {}), ("Sqrt", [], {}), ("Reciprocal", [], {})),
        *(("Mul", ["t2"], {}), ("Unsqueeze", [ints(2, 3)], {})),
    ),
    "unit length of torch": (
        *("UnitLength", CONV, ("GlobalAveragePool", [], {}), ("Flatten", [], {}), ("ReduceL2", [], {"axes": [1]})),
        *(("Div", ["t2", "t3"], {"alone": True}), ("Unsqueeze", [ints(2, 3)], {})),
    ),
}
CASES = {
    "functions": [
        *(CONV, ("Abs", [], {}), ("Sqrt", [], {}), ("Exp", [], {}), ("Reciprocal", [], {}), ("Log", [], {})),
        *(("Neg", [], {}), ("Floor", [], {}), ("Add", ["t0"], {}), ("Ceil", [], {}), ("Mul", ["t2"], {})),
        *(("Erf", [], {}), ("Sin", [], {}), ("Cos", [], {})),
    ],
    "one by another": [
        *(CONV, ("Sigmoid", [], {}), ("Add", [SCALAR[1]], {}), ("Div", ["t0", "t2"], {"alone": True})),
        *(("Div", [SCALAR[2], "t2"], {"alone": True}), ("Add", ["t3"], {}), ("Pow", [SCALAR[2]], {})),
        ("Pow", [SCALAR[0.5]], {}),
    ],
    "sums and least of channels": [
        *(CONV, ("ReduceSum", [ints(1)], {}), ("Mul", ["t0"], {}), ("ReduceMin", [], {"axes": [1]})),
        *(("Add", ["t2"], {}), ("ReduceMax", [], {"axes": [1, 3]}), ("Sub", ["t0"], {})),
    ],
    "windows of maps, repeated": [
        *(CONV, ("Slice", [ints(1, 2), ints(SIDE, -1), ints(2, 3), ints(2, 3)], {})),
        ("Resize", [np.float32([]), np.float32([1, 1, 2, 3])], RESIZED),
    ],
    "slopes of their own": [CONV, ("PRelu", [(8, SIDE, SIDE)], {})],
    "a stem of ResNet": [
        ("Conv", [(8, 3, 7, 7)], {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
        *(NORM, ("Relu", [], {}), ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})),
    ],
    "a maximum of what may be below nought": [
        *(CONV, ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})),
    ],
    "windows beyond the edge": [CONV, ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
    "averages that count the border": [
        CONV,
        (
            "AveragePool",
            [],
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        ),
    ],
    "averages that do not": [
        *(CONV, ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})),
    ],
    "borders by a word": [
        ("Conv", [(8, 3, 2, 2)], {"strides": [1, 1], "auto_pad": "SAME_LOWER"}),
        ("Conv", [(8, 8, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ],
    "depthwise, in groups, dilated": [
        ("Conv", [(6, 1, 3, 3), (6,)], {"group": 3, "pads": [1, 1, 1, 1]}),
        ("Conv", [(8, 3, 3, 3)], {"group": 2, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ],
    "squeeze and excitation": [
        *(CONV, ("GlobalAveragePool", [], {}), ("Conv", [(8, 8, 1, 1), (8,)], {})),
        *(("HardSigmoid", [], {"alpha": 1 / 6}), ("Mul", ["t0"], {})),
    ],
    "gates": [
        *(CONV, ("Sigmoid", [], {}), ("Mul", ["t0"], {}), ("HardSigmoid", [], {"alpha": 1 / 6}), ("Mul", ["t2"], {})),
        *(("Add", [np.float32([3])], {}), ("Clip", [np.float32(0), np.float32(6)], {}), ("Mul", ["t4"], {})),
        ("Div", [np.float32([6])], {}),
    ],
    "activations": [
        *(CONV, ("LeakyRelu", [], {"alpha": 0.3}), ("HardSigmoid", [], {}), ("Elu", [], {}), ("HardSwish", [], {})),
        *(("PRelu", [(8, 1, 1)], {}), ("Selu", [], {}), ("Softplus", [], {}), ("Tanh", [], {}), ("Softsign", [], {})),
        *(("Clip", [np.float32(-0.2), np.float32(0.3)], {}), ("Max", [np.float32([-0.1])], {})),
        ("Min", [np.float32([0.2])], {}),
    ],
    "bounds that are none": [
        *(CONV, ("Max", [np.float32([np.finfo(np.float32).min])], {})),
        *(("Clip", [np.float32(-65504), np.float32(65504)], {}), ("Min", [np.float32([1e9])], {})),
    ],
    "constants": [
        *(CONV, ("Relu", [], {}), ("Mul", [(8, 1, 1)], {}), ("Sub", [(1, 8, 1, 1)], {}), ("Relu", [], {})),
        *(("Sub", [np.float32([2])], {}), ("LRN", [], {"size": 3, "alpha": 0.3, "bias": 2.0})),
    ],
    "joins": [
        *(CONV, ("Relu", [], {}), ("Sum", ["t0", "t0"], {}), ("Max", ["t1"], {}), ("Min", ["t0"], {})),
        *(("Sub", ["t1"], {}), ("Concat", ["t0"], {"axis": 1}), ("Conv", [(8, 16, 1, 1)], {})),
    ],
    "channels shuffled": [
        *(CONV, ("Reshape", [ints(0, 2, 4, SIDE, SIDE)], {}), ("Transpose", [], {"perm": [0, 2, 1, 3, 4]})),
        *(("Reshape", [ints(0, -1, SIDE, SIDE)], {}), ("Split", [ints(3, 5)], {"axis": 1, "answers": 2})),
        ("Concat", ["t4_1", "t4"], {"axis": 1, "alone": True}),
    ],
    "a shortcut without parameters": [
        *(CONV, ("Slice", [ints(0, 0), ints(SIDE, SIDE), ints(2, 3), ints(2, 2)], {})),
        *(("Pad", [ints(0, 2, 0, 1, 0, 2, 0, 1)], {}), ("Conv", [(8, 12, 3, 3)], {})),
    ],
    "a bias and a gate behind a transposition": [
        *(CONV, ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Add", [(8,)], {}), ("Sigmoid", [], {})),
        *(("Transpose", [], {"perm": [0, 2, 1, 3]}), ("Mul", ["t2"], {}), ("Transpose", [], {"perm": [0, 3, 1, 2]})),
    ],
    "channels last within": [
        *(CONV, ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("LayerNormalization", [(8,), (8,)], {"axis": -1})),
        *(("MatMul", [(8, 8)], {}), ("Add", [(8,)], {}), ("Transpose", [], {"perm": [0, 3, 1, 2]})),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_operators_answer_as_onnx_runtime(tmp_path, name):
    opened(write(tmp_path / "theirs.onnx", [*CASES[name], *END]))


@pytest.mark.parametrize("name", TOGETHER)
def test_operators_that_are_one_layer_together(tmp_path, name):
    layer, *steps = TOGETHER[name]
    found = kinds(opened(write(tmp_path / "theirs.onnx", [*steps, *END])).network)
    assert found[layer] == 1
    assert found.keys() <= {"InputLayer", "Conv2D", layer, "GlobalAveragePooling2D", "Flatten", "Reshape", "Dense"}


@pytest.mark.parametrize(
    ("end", "opset"),
    [
        ([("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}), ("Gemm", [(8, 5)], {})], 13),
        ([("ReduceMean", [ints(-1, -2)], {}), ("Squeeze", [ints(2, 3)], {}), ("MatMul", [(8, 5)], {})], 18),
        ([("ReduceMax", [], {"axes": [2, 3]}), ("Squeeze", [], {"axes": [2, 3]}), ("Gemm", [(8, 5)], {})], 11),
        ([("Conv", [(5, 8, 1, 1)], {}), ("Relu", [], {}), ("GlobalAveragePool", [], {}), ("Flatten", [], {})], 9),
        (
            [("GlobalMaxPool", [], {}), ("Conv", [(5, 8, 1, 1)], {}), ("Flatten", [], {}), ("Softmax", [], {})],
            7,
        ),
    ],
)
def test_ends_of_classifiers(tmp_path, end, opset):
    network = opened(write(tmp_path / "theirs.onnx", [CONV, ("Relu", [], {}), *end], opset=opset)).network
    model = as_classifier(network)
    feature_tensor(model)
    assert (network.output_shape, model.output_shape) == ((None, 5), (None, 5))
    assert "Flatten" not in kinds(model) or opset == 7


def test_flattened_maps_cost_no_transposition(tmp_path):
    """The dense layer's rows are put in order instead."""
    dense = ("Gemm", [(5, 8 * SIDE * SIDE), (5,)], {"transB": 1, "alpha": 0.5, "beta": 2.0})
    steps = [CONV, ("Relu", [], {}), ("Flatten", [], {}), ("Dropout", [], {}), ("Relu", [], {}), dense]
    network = opened(write(tmp_path / "theirs.onnx", steps)).network
    assert kinds(network) == {"InputLayer": 1, "Conv2D": 1, "ReLU": 2, "Flatten": 1, "Dense": 1}


def test_a_shape_that_is_reckoned_from_the_batch(tmp_path):
    """As torch writes x.view(x.size(0), -1)."""
    steps = [
        *(CONV, ("MaxPool", [], {"kernel_shape": [SIDE, SIDE]}), ("Shape", [], {})),
        *(("Gather", [np.array(0)], {"axis": 0}), ("Unsqueeze", [ints(0)], {}), ("Concat", [ints(-1)], {"axis": 0})),
        *(("Reshape", ["t1", "t5"], {"alone": True}), ("Gemm", [(8, 5)], {})),
    ]
    assert "Permute" not in kinds(opened(write(tmp_path / "theirs.onnx", steps)).network)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_becomes_any(tmp_path, batch):
    steps = [CONV, ("Relu", [], {}), ("Reshape", [ints(batch, 8 * SIDE * SIDE)], {}), ("Gemm", [(8 * SIDE**2, 5)], {})]
    file = opened(write(tmp_path / "theirs.onnx", steps, shape=(batch, 3, SIDE, SIDE)))
    assert file.network.input_shape == (None, SIDE, SIDE, 3)


def test_all_axes_of_size_one_are_dropped(tmp_path):
    """Of a file for one picture that of the batch too; here it stays."""
    steps = [CONV, ("GlobalAveragePool", [], {}), ("Squeeze", [], {})]
    assert opened(write(tmp_path / "theirs.onnx", steps, shape=(1, 3, SIDE, SIDE))).network.output_shape == (None, 8)


@pytest.mark.parametrize("kind", ["GoogLeNet's", "channels turned round"])
def test_what_prepares_pictures_goes_into_the_preprocessing(tmp_path, kind):
    parts = []
    for channel in range(3):
        number = 4 * channel
        parts += [
            ("Gather", ["x", np.array(channel)], {"axis": 1, "alone": True}),
            ("Unsqueeze", [ints(1)], {}),
            *(("Mul", [np.float32(0.25 + channel)], {}), ("Add", [np.float32(channel - 0.5)], {})),
        ]
        assert len(parts) == number + 4
    starts = {
        "GoogLeNet's": [*parts, ("Concat", ["t3", "t7", "t11"], {"axis": 1, "alone": True})],
        "channels turned round": [
            ("Slice", [ints(-1), ints(-100), ints(1), ints(-1)], {}),
            ("Sub", [np.float32([[[104]], [[117]], [[123]]])], {}),
        ],
    }
    network = opened(write(tmp_path / "theirs.onnx", [*starts[kind], CONV, *END])).network
    model, found = split_rescaling(network, Preprocessing((SIDE, SIDE), scale=1.0))
    assert kinds(model) == {"InputLayer": 1, "Conv2D": 1, "GlobalAveragePooling2D": 1, "Dense": 1}
    expected = {
        "GoogLeNet's": ("rgb", [0.25, 1.25, 2.25], [-0.5, 0.5, 1.5]),
        "channels turned round": ("bgr", [1, 1, 1], [-104, -117, -123]),
    }
    assert found.channel_order == expected[kind][0]
    np.testing.assert_allclose(found.affine(), expected[kind][1:], rtol=1e-6)


def test_pictures_with_their_channels_last(tmp_path):
    """As converters from TensorFlow write it."""
    steps = [
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
        CONV,
        ("Relu", [], {}),
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ]
    steps += [("ReduceMean", [], {"axes": [1, 2], "keepdims": 0}), ("MatMul", [(8, 5)], {}), ("Add", [(5,)], {})]
    network = opened(write(tmp_path / "theirs.onnx", [*steps, ("Softmax", [], {})], shape=(1, SIDE, SIDE, 3))).network
    assert [type(layer).__name__ for layer in network.layers[1:]] == (
        ["Conv2D", "ReLU", "GlobalAveragePooling2D", "Dense", "Activation"]
    )


@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_weights_that_the_file_rounds_itself(tmp_path, opset):
    """As torch writes a network that was trained for rounding."""
    scale = [np.float32(0.02), np.int8(0)]
    steps = [
        *(("QuantizeLinear", [weights(8, 3, 3, 3), *scale], {"alone": True}), ("DequantizeLinear", scale, {})),
        ("Conv", ["x", "t1"], {"alone": True}),
    ]
    assert not opened(write(tmp_path / "theirs.onnx", [*steps, *END], opset=opset)).quantized


def test_scaling_that_two_branches_read_is_one_layer(tmp_path):
    """Made for each, it stood before neither alone, and the network was said not to scale."""
    steps = [
        ("Mul", [np.float32(1 / 255)], {}),
        ("Conv", [(8, 3, 3, 3)], {"pads": [1] * 4}),
        ("Conv", ["t0", (8, 3, 1, 1)], {"alone": True}),
        ("Add", ["t1"], {}),
    ]
    network = opened(write(tmp_path / "theirs.onnx", [*steps, *END])).network
    assert kinds(network)["Rescaling"] == 1


@pytest.mark.parametrize("computed", [True, False])
def test_gates_that_are_expanded_before_they_multiply(tmp_path, computed):
    """As torch writes ``x * y.expand_as(x)`` of squeeze and excitation."""
    steps = [
        ("Conv", [(8, 3, 3, 3)], {"pads": [1] * 4}),
        ("GlobalAveragePool", [], {}),
        ("Conv", [(8, 8, 1, 1)], {}),
        ("Sigmoid", [], {}),
        ("Shape", ["t0"], {"alone": True}),
        ("Expand", ["t3", "t4" if computed else np.int64([1, 8, SIDE, SIDE])], {"alone": True}),
        ("Mul", ["t0"], {}),
    ]
    network = opened(write(tmp_path / "theirs.onnx", [*steps, *END])).network
    assert kinds(network)["Multiply"] == 1


def test_names_of_torchs_modules_tell_nothing(tmp_path):
    """A weight called block5.conv3 made Caffe's pixels of everybody's."""
    path = write(tmp_path / "theirs.onnx", [("Conv", [(8, 3, 3, 3)], {}), *END])
    document = onnx.load(path)
    document.graph.node[0].name = "/block5_conv3/Conv"
    onnx.save(document, path)
    assert "block5_conv3" in opened(path).names
    document.producer_name = "pytorch"
    onnx.save(document, path)
    assert not opened(path).names


@pytest.mark.parametrize("halved", [True, False])
def test_a_file_in_half_precision_answers_as_closely_as_that_is(tmp_path, halved):
    """Seven convolutions rounded to 11 bits each are 0.0003 off; where weights alone are stored so, nothing is."""
    half = [weights(8, 3 if number == 0 else 8, 3, 3).astype(np.float16) for number in range(7)]
    convolutions = [("Conv", [kernel], {"pads": [1] * 4}) for kernel in half]
    steps = [("Cast", [], {"to": 10}), *convolutions, ("Cast", [], {"to": 1})]
    if not halved:
        kernels = [("Cast", [kernel], {"to": 1, "alone": True}) for kernel in half]
        convolutions = [
            ("Conv", ["x" if number == 0 else f"t{number + 6}", f"t{number}"], {"pads": [1] * 4, "alone": True})
            for number in range(7)
        ]
        steps = [*kernels, *convolutions]
    assert opened(write(tmp_path / "theirs.onnx", [*steps, *END])).halved == halved


@pytest.mark.parametrize("cap", [6.0, 0.7])
@pytest.mark.parametrize("zero", [np.uint8(0), np.int8(-128)])
def test_a_range_that_begins_at_nought_is_an_activation(tmp_path, cap, zero):
    """ONNX Runtime leaves out a ReLU6 whose range does the same."""
    scale = np.float32(cap / 255)
    steps = [
        *(("Conv", [20 * weights(8, 3, 3, 3)], {}), ("QuantizeLinear", [scale, zero], {})),
        *(("DequantizeLinear", [scale, zero], {}), *END[:2]),
        *(("QuantizeLinear", [scale, zero], {}), ("DequantizeLinear", [scale, zero], {}), *END[2:]),
    ]
    path = write(tmp_path / "theirs.onnx", steps)
    file = opened(path)
    (activation,) = [layer for layer in file.network.layers if type(layer).__name__ == "ReLU"]
    assert activation.max_value == pytest.approx(cap)
    assert (activation.max_value == 6.0) == (cap == 6.0)
    inputs = RNG.normal(0, 1, (3, *file.network.input_shape[1:])).astype(np.float32)
    assert check_answers(path, file, inputs) < 0.01  # what rounding changes


def test_rounded_weights_and_ranges(tmp_path):
    """Of a file quantized with QuantizeLinear and DequantizeLinear; the ReLU is where a range begins at nought."""
    scale, zero = np.float32(0.02), np.uint8(0)
    kernel = RNG.integers(-100, 100, (8, 3, 3, 3), np.int8)
    steps = [
        ("QuantizeLinear", [np.float32(0.03), np.uint8(128)], {}),
        ("DequantizeLinear", [np.float32(0.03), np.uint8(128)], {}),
        (
            "DequantizeLinear",
            [kernel, np.float32(np.linspace(0.01, 0.02, 8)), np.zeros(8, np.int8)],
            {"axis": 0, "alone": True},
        ),
        ("Conv", ["t1", "t2"], {"alone": True}),
        *(("QuantizeLinear", [scale * 8, zero], {}), ("DequantizeLinear", [scale * 8, zero], {})),
    ]
    file = opened(write(tmp_path / "theirs.onnx", [*steps, *END]))
    assert file.quantized
    assert kinds(file.network)["ReLU"] == 1
