import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from interpreted import interpreted

from toolkit.compress import operator_report
from toolkit.compress.litert import compact, require_integer
from toolkit.engines.convert import to_litert
from toolkit.errors import UserError
from toolkit.layers import LocalResponseNormalization

layers = keras.layers
EXAMPLES = np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="input")
    x = layers.Conv2D(16, 3, use_bias=False, name="stem_conv")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = LocalResponseNormalization(5, 1.0, 1.0, name="stem_norm")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="last_conv")(x)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="head_logits")(x), name="small")


@pytest.fixture(scope="module")
def files(network):
    kinds = ("none", "dynamic", "float16", "int8", "int16x8")
    plain = keras.Model(network.inputs, network.get_layer("stem_relu").output)  # every kind has a form for these
    return {kind: to_litert(plain, quantization=kind, calibration=[EXAMPLES]) for kind in kinds}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("none", "float32"), ("dynamic", "float32"), ("float16", "float32"), ("int8", "int8"), ("int16x8", "int16")],
)
def test_operators_are_counted_by_what_they_compute_in(files, kind, expected):
    report = operator_report(files[kind])
    assert report.by_name["CONV_2D"] == {expected: 1}
    assert ("int8" in report.by_type) == (kind == "int8")
    assert bool(report.float_outputs) == (expected == "float32")


def test_dynamic_range_operators_are_hybrid(lenet):
    report = operator_report(to_litert(lenet, quantization="dynamic"))
    assert report.by_name["FULLY_CONNECTED"]["hybrid"] >= 2


def test_counts_agree_with_the_interpreter(files):
    """Its listing is private, and what it says of a file is beyond doubt."""
    from ai_edge_litert.interpreter import OpResolverType

    for content in files.values():
        interpreter = Interpreter(
            model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        listed = sorted(operation["op_name"] for operation in interpreter._get_ops_details())
        counted = {name: sum(kinds.values()) for name, kinds in operator_report(content).by_name.items()}
        assert sorted(name for name, count in counted.items() for _ in range(count)) == listed


def test_what_is_not_a_litert_file_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_text("no")
    with pytest.raises(UserError, match=r"model.tflite is not a LiteRT file"):
        operator_report(tmp_path / "model.tflite")


HEAD = ("head_pool", "head_logits")  # small, and so in float


def test_layers_left_in_float_are_allowed_named_or_refused(network):
    content = to_litert(network, quantization="int8", calibration=[EXAMPLES], keep_float=("last_conv",))
    assert require_integer(content, network, ("last_conv",)) == ("stem_norm", "last_conv", *HEAD)
    with pytest.raises(UserError, match=r"small: 1 layers stayed in float in the int8 file: last_conv; .* keep_float"):
        require_integer(content, network)
    with pytest.raises(UserError, match="2 layers stayed in float in the int8 file: stem_conv, last_conv;"):
        require_integer(to_litert(network), network)


def test_a_slimmed_file_answers_alike_and_names_its_layers(network, tmp_path):
    content = to_litert(network, quantization="int8", calibration=[EXAMPLES])
    slim = compact(content, [layer.name for layer in network.layers])
    assert len(slim) < 0.9 * len(content)
    assert operator_report(slim).by_name == operator_report(content).by_name
    np.testing.assert_array_equal(interpreted(slim, EXAMPLES), interpreted(content, EXAMPLES))
    names = {detail["name"].split("/")[0] for detail in Interpreter(model_content=slim).get_tensor_details()}
    assert {"stem_conv", "stem_relu", "stem_norm", "last_conv", "head_pool"} <= names
    openvino = pytest.importorskip("openvino")
    others = []
    for file in (slim, content):
        (tmp_path / "model.tflite").write_bytes(file)
        others.append(openvino.compile_model(tmp_path / "model.tflite", "CPU")(EXAMPLES)[0])
    np.testing.assert_array_equal(*others)
