"""LiteRT files and SavedModels built anew in Keras."""

import shutil
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from toolkit.bundle import MANIFEST
from toolkit.errors import UserError
from toolkit.factory import open_network, preprocessing_of
from toolkit.factory.graphs import check_answers, is_graph, open_graph
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing

SIZE = (16, 20)
RNG = np.random.default_rng(0)


def teachable():
    """A small network with names as Teachable Machine's, and all that a MobileNet has."""
    keras.utils.set_random_seed(0)
    x = start = keras.Input((*SIZE, 3), name="image")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="Conv1_pad")(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="Conv1")(x)
    x = layers.BatchNormalization(name="bn_Conv1", beta_initializer="normal", gamma_initializer="normal")(x)
    x = shortcut = layers.ReLU(6.0, name="Conv1_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="dw")(x)
    x = layers.Activation("hard_silu", name="swish")(layers.Conv2D(8, 1, name="project")(x))
    x = layers.Concatenate(name="join")([layers.Add(name="add")([x, shortcut]), shortcut])
    x = layers.MaxPooling2D(name="pool")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = layers.Multiply(name="excite")([x, layers.Conv2D(16, 1, activation="sigmoid", name="gate")(gate)])
    x = layers.AveragePooling2D(2, padding="same", name="average")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(6, activation="relu", name="dense_Dense1")(x)
    return keras.Model(start, layers.Dense(3, activation="softmax", use_bias=False, name="dense_Dense2")(x))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """One network as a SavedModel and as LiteRT files, and what it answers to pixels that are scaled to -1…1."""
    home, model = tmp_path_factory.mktemp("theirs"), teachable()
    model.export(home / "model.savedmodel", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(home / "model.savedmodel"))
    (home / "model_unquant.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [RNG.uniform(-1, 1, (1, *SIZE, 3)).astype(np.float32)] for _ in range(30)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (home / "model.tflite").write_bytes(converter.convert())
    return home, model


@pytest.mark.parametrize(
    ("name", "tolerance"), [("model.savedmodel", 1e-5), ("model_unquant.tflite", 1e-5), ("model.tflite", 0.03)]
)
def test_teachable_machines_exports_answer_alike(theirs, name, tolerance):
    home, own = theirs
    model = open_network(home / name)
    factor, offset = preprocessing_of(model).affine()
    np.testing.assert_allclose(factor, (1 / 127.5,) * 3, rtol=0.01)
    np.testing.assert_allclose(offset, (-1,) * 3, atol=0.02)
    assert (preprocessing_of(model).resize, preprocessing_of(model).crop_fraction) == ("crop", 1)
    pixels = RNG.integers(0, 256, (4, *SIZE, 3)).astype(np.float32)
    answers = softmax(model.predict(pixels * np.float32(factor) + np.float32(offset), verbose=0))
    np.testing.assert_allclose(answers, own.predict(pixels / 127.5 - 1, verbose=0), atol=tolerance)
    assert type(model.layers[-1]).__name__ == "Dense"
    assert not {"Permute", "Reshape"}.intersection(type(layer).__name__ for layer in model.layers)


def test_a_range_that_begins_at_nought_is_a_relu(theirs):
    home, _ = theirs
    kinds = Counter(type(layer).__name__ for layer in open_graph(home / "model.tflite", None).network.layers)
    assert kinds["ReLU"] == 2  # that of the dense layer too


def test_a_saved_model_of_any_size_that_scales_its_pictures(tmp_path):
    """The converter folds the scaling into the convolution, and its name alone is left."""
    keras.utils.set_random_seed(1)
    start = keras.Input((None, None, 1))
    x = layers.Conv2D(6, 3, activation="leaky_relu")(layers.Rescaling(1 / 255)(start))
    x = layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    own = keras.Model(start, x)
    own.export(tmp_path / "theirs", verbose=False)
    file = open_graph(tmp_path / "theirs", SIZE)
    assert file.network.input_shape == (None, *SIZE, 1)
    inputs = RNG.uniform(0, 255, (2, *SIZE, 1)).astype(np.float32)
    assert check_answers(tmp_path / "theirs", file, inputs) < 1e-5
    assert any("rescaling" in name for name in file.names)
    with pytest.raises(UserError, match="takes pictures of any size"):
        open_network(tmp_path / "theirs")
    grey = Preprocessing(SIZE, channel_order="grey", scale=1.0, mean=(0.0,), std=(1.0,))
    model = open_network(tmp_path / "theirs", preprocessing=grey)
    answers = softmax(model.predict(inputs, verbose=0))[:, 1:]
    np.testing.assert_allclose(answers, own.predict(inputs, verbose=0), atol=1e-5)


def test_a_saved_model_that_takes_pixels_tells_so(tmp_path):
    start = keras.Input((*SIZE, 3), dtype="uint8")
    x = layers.Conv2D(4, 3)(layers.Lambda(lambda pixels: tf.cast(pixels, tf.float32))(start))
    own = keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    own.export(tmp_path / "theirs", verbose=False)
    model = open_network(tmp_path / "theirs")
    assert preprocessing_of(model) == Preprocessing(SIZE, resize="stretch", scale=1.0)
    pixels = RNG.integers(0, 256, (2, *SIZE, 3), np.uint8)
    answers = model.predict(pixels.astype(np.float32), verbose=0)
    np.testing.assert_allclose(answers, own.predict(pixels, verbose=0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_bytes", [0, 3, 40, 2000, -30])
def test_a_file_cut_off_is_told(theirs, tmp_path, num_bytes):
    content = (theirs[0] / "model.tflite").read_bytes()[:num_bytes]
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.tflite: (is no LiteRT file|is cut off or damaged|.* is not whole)"):
        open_graph(tmp_path / "model.tflite", None)


def test_a_file_for_several_pictures_at_once(tmp_path):
    own = keras.Sequential([keras.Input((8, 8, 3), batch_size=4), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    (tmp_path / "theirs.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(own).convert())
    file = open_graph(tmp_path / "theirs.tflite", None)
    assert check_answers(tmp_path / "theirs.tflite", file, RNG.normal(0, 1, (6, 8, 8, 3)).astype(np.float32)) < 1e-5


def test_an_operator_that_answers_nothing_is_told(tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3])])
        def answer(self, x):
            self.count.assign_add(1.0)
            return tf.reduce_mean(x, [1, 2]) + self.count

    own = Counting()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([own.answer.get_concrete_function()], own)
    converter.experimental_enable_resource_variables = True
    (tmp_path / "theirs.tflite").write_bytes(converter.convert())
    with pytest.raises(UserError, match=r"operator \w+ of .* has no rule here"):
        open_graph(tmp_path / "theirs.tflite", None)


class Program(tf.Module):
    """Functions that are no classifiers."""

    def __init__(self, place):
        super().__init__()
        self.place = str(place)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def writing(self, x):
        tf.io.write_file(self.place, "written")
        return {"y": tf.reduce_mean(x, [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def averaging(self, x):
        return {"y": tf.reduce_mean(x, [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decoding(self, x):
        return {"y": tf.ones([1, 3])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def twice(self, x):
        return {"y": tf.reduce_mean(x, [1, 2]), "z": tf.reduce_max(x, [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def sorting(self, x):
        return {"y": tf.math.top_k(tf.reduce_mean(x, [1, 2])).values}


class Looking(tf.Module):
    """A function that looks up a table, which is filled by an operation when it is loaded."""

    def __init__(self, place):
        super().__init__()
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
    def looking(self, x):
        return {"y": tf.reduce_mean(x, [1, 2]) + self.table.lookup(tf.constant(["a"]))}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("writing", r"runs the operation WriteFile \('WriteFile'\)"),
        ("decoding", "takes string, and pictures are float32 or uint8"),
        ("twice", r"has 2 outputs \(y, z\)"),
        ("sorting", "runs the operation TopKV2"),
        ("looking", "holds a table or another resource"),
    ],
)
def test_a_saved_model_that_is_another_program_is_not_loaded(tmp_path, monkeypatch, function, words):
    program = (Looking if function == "looking" else Program)(tmp_path / "written")
    tf.saved_model.save(program, str(tmp_path / "theirs"), signatures=getattr(program, function))
    monkeypatch.setattr(tf.saved_model, "load", None)
    with pytest.raises(UserError, match=words):
        open_graph(tmp_path / "theirs", None)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("tampered", "words"),
    [
        ("signature", "runs the operation WriteFile"),
        ("restoring", "or another resource, which is"),
        ("constant", "holds constants of 1,099,511,627,7.. numbers"),
    ],
)
def test_a_saved_model_whose_objects_call_other_functions_is_not_loaded(tmp_path, monkeypatch, tampered, words):
    """TensorFlow calls what the tree of objects names, also to restore them, and not what the signatures list."""
    program = Program(tmp_path / "written")
    signatures = {"serving_default": program.averaging, "other": program.writing}
    tf.saved_model.save(program, str(tmp_path / "theirs"), signatures=signatures)
    file, document = tmp_path / "theirs" / "saved_model.pb", saved_model_pb2.SavedModel()
    document.ParseFromString(file.read_bytes())
    objects = document.meta_graphs[0].object_graph_def.nodes
    (table,) = [child.node_id for child in objects[0].children if child.local_name == "signatures"]
    numbers = {child.local_name: child.node_id for child in objects[table].children}
    if tampered == "signature":
        objects[numbers["serving_default"]].CopyFrom(objects[numbers["other"]])
    elif tampered == "constant":  # a number stands in the file, and the shape beside it
        for function in document.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "Const":
                    node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 39)
    else:
        objects[0].saveable_objects["anything"].restore_function = numbers["other"]
    file.write_bytes(document.SerializeToString())
    monkeypatch.setattr(tf.saved_model, "load", None)
    with pytest.raises(UserError, match=words):
        open_graph(tmp_path / "theirs", None)


def test_a_damaged_saved_model_is_told(theirs, tmp_path):
    shutil.copytree(theirs[0] / "model.savedmodel", tmp_path / "theirs")
    for file in (tmp_path / "theirs" / "variables").iterdir():
        file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(UserError, match="theirs: TensorFlow cannot load and convert it"):
        open_graph(tmp_path / "theirs", None)
    (tmp_path / "theirs" / "saved_model.pb").write_bytes(b"\x0a\xff")
    with pytest.raises(UserError, match=r"theirs: saved_model\.pb is cut off or damaged"):
        open_graph(tmp_path / "theirs", None)


def test_a_bundle_is_no_saved_model_of_others(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert is_graph(tmp_path)

    (tmp_path / MANIFEST).parent.mkdir(exist_ok=True)
    (tmp_path / MANIFEST).write_text("{}")
    assert not is_graph(tmp_path)
