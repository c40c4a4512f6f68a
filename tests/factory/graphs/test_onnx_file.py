"""ONNX files that are damaged, hostile, or no classifiers: one line that says what to do."""

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from toolkit.errors import UserError
from toolkit.factory import open_network, preprocessing_of
from toolkit.factory.graphs import check_answers, open_graph
from toolkit.factory.graphs.building import graph
from toolkit.factory.graphs.onnx_file import read_threshold
from toolkit.spec import IMAGENET

KERNEL = np.random.default_rng(0).normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32)
INTS = {
    name: np.array(values, np.int64)
    for name, values in {"huge": [1 << 40], "places": [3] * 16, "pads": [0, 0, 9**9, 0, 0, 0, 0, 0]}.items()
}


def model(*middle, shape=(None, 3, 8, 8), opset=17, elem=1, outputs=("y",), inputs=("x",), end=True):
    """A convolution, further nodes from ``a`` on to ``b``, and an average."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Conv", ["x", "conv.weight"], ["a"], name="conv"), *middle]
    if end:
        nodes += [helper.make_node("GlobalAveragePool", ["b" if middle else "a"], ["p"])]
        nodes += [helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("Identity", ["f"], ["y"])]
    constants = {"conv.weight": KERNEL, "factor": KERNEL[:, :1, :1, 0], **INTS}
    graph = helper.make_graph(
        nodes,
        "theirs",
        [value(name, elem, shape) for name in inputs],
        [value(name, 1, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind, inputs=("a",), outputs=("b",), **attributes):
    return helper.make_node(kind, inputs, outputs, name=kind.lower(), **attributes)


def message(tmp_path, document, size=None):
    path = tmp_path / "theirs.onnx"
    path.write_bytes(document if isinstance(document, bytes) else document.SerializeToString())
    with pytest.raises(UserError) as caught:
        open_graph(path, size)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def external(location, **entries):
    document = model()
    tensor = document.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return document


REFUSED = {
    "cut off": (model().SerializeToString()[:-40], "is no ONNX file, or is cut off"),
    "empty": (b"", "is no ONNX file, or holds an empty graph"),
    "text": (b"<!doctype html><html>", "is no ONNX file"),
    "old": (model(opset=6), "is of opset 6, and 7 to"),
    "unknown": (
        model(node("Einsum", equation="bchw->bchw")),
        "'einsum' (Einsum) has no rule here; leave it out",
    ),
    "foreign": (model(node("FusedConv", domain="com.microsoft")), "(FusedConv) has no rule here"),
    "a class's number": (model(node("ArgMax")), "answers which class is likeliest"),
    "attention": (model(node("MatMul", ("a", "a"))), "as attention does"),
    "a circle": (
        model(node("Add", ("a", "c"), ("b",)), node("Relu", ("b",), ("c",))),
        "has a circle, or",
    ),
    "twice": (
        model(node("Relu", outputs=("b",)), node("Relu", outputs=("b",))),
        "gives 'b', which is given",
    ),
    "two pictures": (model(inputs=("x", "x2")), "has 2 inputs (x, x2)"),
    "two answers": (model(outputs=("y", "p")), "has 2 outputs (y, p)"),
    "maps": (model(node("Relu", outputs=("y",)), end=False), "answers 4×6×6 a picture"),
    "integers": (model(elem=7), "takes int64"),
    "vectors": (model(shape=(None, 3)), "takes ?×3, and pictures have four axes"),
    "channels": (model(shape=(None, 5, 8, 8)), "pictures have 1 or 3 channels"),
    "any size": (model(shape=(None, 3, None, None)), "takes pictures of any size (?×3×?×?)"),
    "a huge picture": (model(shape=(None, 3, 10**6, 10**6)), "a side has 1 to 2048 pixels"),
    "a huge constant": (
        model(node("ConstantOfShape", ("huge",), ("c",)), node("Add", ("a", "c"))),
        "makes a constant of 1,099,511,627,776 numbers",
    ),
    "many pictures": (model(shape=(1 << 30, 3, 8, 8)), "for 1,073,741,824 pictures at once, more than there is"),
    "a huge border": (model(node("Pad", ("a", "pads"))), "more than there is memory for"),
    "a strange attribute": (model(node("MaxPool", kernel_shape=[0, 0])), "'maxpool' (MaxPool)"),
    "training": (
        model(node("BatchNormalization", ("a", *["conv.weight"] * 4), training_mode=1)),
        "model.eval()",
    ),
    "elsewhere": (external("../weights.bin"), "'../weights.bin', outside of the file's folder"),
    "everywhere": (external("/etc/passwd"), "'/etc/passwd', outside of the file's folder"),
    "nowhere": (external("weights.bin"), "weights.bin, which is not beside it"),
    "a constant elsewhere": (
        model(
            node("Constant", (), ("c",), value=external("../weights.bin").graph.initializer[0]), node("Add", ("a", "c"))
        ),
        "'../weights.bin', outside of the file's folder",
    ),
    "beyond": (external("theirs.onnx", offset=10**6), "is not whole in theirs.onnx"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_told(tmp_path, name):
    document, words = REFUSED[name]
    assert words in message(tmp_path, document)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.bin").write_bytes(KERNEL.tobytes())
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "weights.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside of the file's folder" in message(tmp_path / "theirs", external("weights.bin"))


def test_weights_beside_the_file(tmp_path):
    (tmp_path / "weights.bin").write_bytes(bytes(64) + KERNEL.tobytes())
    (tmp_path / "theirs.onnx").write_bytes(external("weights.bin", offset=64, length=KERNEL.nbytes).SerializeToString())
    found = open_graph(tmp_path / "theirs.onnx", None).network.get_layer("conv").get_weights()[0]
    np.testing.assert_array_equal(found, KERNEL.transpose(2, 3, 1, 0))


DOUBLED = ["conv.weight" + "d" * number for number in range(15)]
REPEATED = {
    "a constant doubled": [
        *(node("Concat", [name, name], [f"{name}d"], axis=0) for name in DOUBLED),
        node("Add", ("a", f"{DOUBLED[-1]}d")),
    ],
    "channels picked": [
        node("Gather", ("a", "places"), ("b0",), axis=1),
        *(node("Gather", (f"b{n}", "places"), (f"b{n + 1}",), axis=1) for n in range(9)),
        node("Identity", ("b9",)),
    ],
    "a convolution scaled": [
        *(node("Mul", ("a" * n, "factor"), ("a" * (n + 1),)) for n in range(1, 9)),
        node("Identity", ("a" * 9,)),
    ],
}


@pytest.mark.parametrize("name", REPEATED)
def test_what_a_file_repeats_counts_each_time(tmp_path, monkeypatch, name):
    monkeypatch.setattr(graph, "MAX_HELD", 900)
    assert "numbers, more than there is memory for" in message(tmp_path, model(*REPEATED[name]))


def test_what_the_answer_does_not_need_is_neither_read_nor_run(tmp_path):
    elsewhere = external("../weights.bin").graph.initializer[0]
    document = model(node("Constant", (), ("c",), value=elsewhere), node("Strange", ("c",), ("d",)), node("Relu"))
    onnx.save(document, tmp_path / "theirs.onnx")
    file = open_graph(tmp_path / "theirs.onnx", None)
    assert check_answers(tmp_path / "theirs.onnx", file, np.ones((2, 8, 8, 3), np.float32)) < 1e-5


def test_outputs_may_be_left_out(tmp_path):
    document = model(node("Dropout", outputs=("d", "")), node("MaxPool", ("d",), ("b", ""), kernel_shape=[2, 2]))
    onnx.save(document, tmp_path / "theirs.onnx")
    file = open_graph(tmp_path / "theirs.onnx", None)
    assert check_answers(tmp_path / "theirs.onnx", file, np.ones((2, 8, 8, 3), np.float32)) < 1e-5


def test_a_network_of_any_size_takes_the_preprocessings(tmp_path):
    onnx.save(model(shape=(None, 3, None, None)), tmp_path / "theirs.onnx")
    network = open_network(tmp_path / "theirs.onnx", preprocessing=IMAGENET.resized((10, 12)))
    assert network.input_shape == (None, 10, 12, 3)
    assert preprocessing_of(network).affine() == IMAGENET.affine()
    onnx.save(model(), tmp_path / "theirs.onnx")
    with pytest.raises(UserError, match="give a preprocessing: --preprocessing imagenet for a network of torchvision"):
        open_network(tmp_path / "theirs.onnx")


def test_without_onnx_the_command_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "needs onnxruntime, which is not installed: pip install 'toolkit[onnx]'" in message(tmp_path, model())


def test_own_files_come_back_as_they_went(tmp_path):
    """And say how a picture becomes their pixels."""
    from toolkit import create_model
    from toolkit.engines.onnx_graph import to_onnx

    network, preprocessing = create_model("nin_cifar"), replace(IMAGENET, size=(32, 32), crop_fraction=0.875)
    path = tmp_path / "nin.onnx"
    path.write_bytes(to_onnx(network, preprocessing))
    opened = open_network(path)
    found = preprocessing_of(opened)
    assert (found.resize, found.crop_fraction, found.size) == ("crop", 0.875, (32, 32))
    np.testing.assert_allclose(found.affine(), preprocessing.affine(), rtol=1e-5)
    inputs = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(opened(inputs), network(inputs), rtol=1e-3, atol=1e-5)


def test_a_grey_network_comes_back_as_one(tmp_path):
    """The luma in the file is its preprocessing again, so that it answers to pictures in colour as before."""
    from toolkit import create_model, model_info
    from toolkit.data.pixels.decode import normalize
    from toolkit.engines.onnx_graph import to_onnx

    network, preprocessing = create_model("lenet5"), model_info("lenet5").preprocessing
    path = tmp_path / "lenet.onnx"
    path.write_bytes(to_onnx(network, preprocessing))
    opened = open_network(path)
    found = preprocessing_of(opened)
    assert (found.channel_order, opened.input_shape) == ("grey", network.input_shape)
    np.testing.assert_allclose(found.affine(), preprocessing.affine(), rtol=1e-5)
    assert not [layer.name for layer in opened.layers if type(layer).__name__ in ("Elementwise", "Rescaling")]
    pixels = np.random.default_rng(0).integers(0, 256, (4, *preprocessing.size, 3), np.uint8)
    answers = [each(normalize(pixels, preprocessing_of(each))) for each in (opened, network)]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_a_picture_read_in_colour_and_in_grey_is_told(tmp_path):
    luma = [numpy_helper.from_array(np.float32([19595, 38470, 7471]).reshape(1, 3, 1, 1) / 65536, "luma")]
    luma += [numpy_helper.from_array(np.float32([0.5]), "half")]
    document = model(node("Conv", ("x", "luma", "half"), ("l",)), node("Floor", ("l",), ("g",)), end=False)
    pooled = [node("GlobalAveragePool", (name,), (f"p{name}",)) for name in ("g", "a")]
    document.graph.node.extend([*pooled, node("Concat", ("pg", "pa"), ("c",), axis=1), node("Flatten", ("c",), ("y",))])
    document.graph.initializer.extend(luma)
    assert "reads the picture both in colour and in grey" in message(tmp_path, document)


def test_a_fine_tuned_head_comes_back(tmp_path, caplog):
    """Of all stages at unit length, and with novelty, which the network alone does not answer."""
    from toolkit import create_model
    from toolkit.engines.onnx_graph import to_onnx
    from toolkit.layers import Elementwise, UnitLength
    from toolkit.transfer.heads.feature_set import FeatureSet
    from toolkit.transfer.heads.head import Head
    from toolkit.transfer.heads.novelty import Novelty
    from toolkit.transfer.stages import pooled_cuts, stitch, with_novelty

    body, rng = create_model("resnet20"), np.random.default_rng(0)
    cuts = pooled_cuts(body)
    width = sum(cut.width for cut in cuts)
    kernel = rng.normal(size=(width, 3)).astype(np.float32)
    head = Head([(kernel, np.zeros(3, np.float32))], "lbfgs", 1.0)
    network = stitch(body, FeatureSet(tuple(cut.name for cut in cuts), normalized=True), head)
    kernel = rng.normal(size=(cuts[-1].width, 3)).astype(np.float32)
    novelty = Novelty(kernel, np.ones(3, np.float32), kernel[:, :2], 10, 0.0)
    path, preprocessing = tmp_path / "tuned.onnx", replace(IMAGENET, size=(32, 32))
    path.write_bytes(to_onnx(with_novelty(network, novelty), preprocessing))
    with caplog.at_level("INFO", logger="toolkit"):
        opened = open_network(path)
    assert "its answer 'novelty' is left out" in caplog.text
    assert sum(isinstance(layer, UnitLength) for layer in opened.layers) == len(cuts) > 2
    assert not any(isinstance(layer, Elementwise) for layer in opened.layers)
    inputs = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(opened(inputs), network(inputs), atol=1e-4)


@pytest.mark.parametrize(
    "note", ['{"mode": "crop"}', "as usual", '{"mode": "tile", "crop_fraction": 1, "interpolation": "bilinear"}', "3"]
)
def test_notes_of_others_are_passed_over(tmp_path, note):
    document = model(elem=2, shape=(None, 3, 8, 8))
    document.graph.node.insert(0, node("Cast", ("x",), ("numbers",), to=1))
    document.graph.node[1].input[0] = "numbers"
    document.metadata_props.add(key="resize", value=note)
    onnx.save(document, tmp_path / "theirs.onnx")
    assert open_graph(tmp_path / "theirs.onnx", None).preprocessing.resize == "stretch"


@pytest.mark.parametrize(("note", "threshold"), [("0.25", 0.25), ("1", 1.0), ("null", None), (None, None)])
def test_a_threshold_that_is_noted_is_read(tmp_path, caplog, note, threshold):
    assert noted_threshold(tmp_path, caplog, note) == threshold
    assert not caplog.text


@pytest.mark.parametrize("note", ["2", "NaN", "true", "half", "["])
def test_a_threshold_that_is_no_probability_is_left_out_and_said(tmp_path, caplog, note):
    assert noted_threshold(tmp_path, caplog, note) is None
    assert f"reject_below is left out; expected a probability, 0…1, got {note}" in caplog.text


def noted_threshold(folder, caplog, note):
    document = model()
    helper.set_model_props(document, {} if note is None else {"reject_below": note})
    onnx.save(document, folder / "theirs.onnx")
    with caplog.at_level("INFO", "toolkit"):
        return read_threshold(folder / "theirs.onnx")
