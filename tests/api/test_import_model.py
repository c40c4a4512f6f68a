"""Somebody else's classifier, from the file that Keras saved, as a bundle."""

import base64
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from scipy.io import savemat

import toolkit
from toolkit.bundle import read_manifest
from toolkit.engines import FLOAT_ENGINES
from toolkit.errors import UserError
from toolkit.metrics import softmax
from toolkit.spec import IMAGENET
from toolkit.workflows import steps

SIZE = (24, 24)


def write_pictures(folder):
    folder.mkdir()
    for number in range(1, 5):
        Image.fromarray(np.full((30, 30, 3), 40 * number, np.uint8)).save(folder / f"ILSVRC2012_val_{number:08}.JPEG")
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A network that scales its input and answers probabilities, with names as Teachable Machine writes them."""
    home = tmp_path_factory.mktemp("theirs")
    keras.utils.set_random_seed(0)
    body = [layers.Conv2D(8, 3, strides=2, activation="relu"), layers.GlobalAveragePooling2D()]
    start = [keras.Input((*SIZE, 3)), layers.Rescaling(1 / 127.5, offset=-1)]
    model = keras.Sequential([*start, *body, layers.Dense(3, activation="softmax")], name="mine")
    model.save(home / "model.keras")
    (home / "labels.txt").write_text("0 ant\n1 bee hive\n2 wasp\n", encoding="utf-8")
    return home, model


def test_bundle_answers_what_the_network_answers(theirs, tmp_path):
    home, model = theirs
    result = toolkit.import_model(home / "model.keras", out=tmp_path / "saved_models" / "m")  # labels.txt is beside it
    assert result["labels"] == ["ant", "bee hive", "wasp"]
    assert {"savedmodel", "litert", "openvino"} <= set(result["parity"]) <= {*FLOAT_ENGINES, "openvino-bf16"}
    assert max(result["parity"][engine] for engine in FLOAT_ENGINES) < 1e-4
    pixels = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    for engine in ("litert", "savedmodel"):
        predictor = toolkit.Predictor.load(result["bundle"], engine)
        np.testing.assert_allclose(predictor.probabilities(pixels), expected, atol=1e-4)
    assert "top1" not in read_manifest(result.place.parent).metrics
    assert (result.place / "run.toml").exists()


@pytest.mark.slow
def test_pictures_calibrate_an_int8_file(theirs, make_folder, tmp_path):
    home, _ = theirs
    photos = make_folder(tmp_path / "photos", {"ant": 6, "wasp": 6})
    result = toolkit.import_model(
        home / "model.keras", labels=["ant", "bee hive", "wasp"], data=photos, out=tmp_path / "m", examples=2
    )
    assert "litert-int8" in result["parity"]
    measured = toolkit.evaluate(result["bundle"], photos, engine="litert")
    assert measured["n"] == 12
    assert toolkit.answer_examples(result["bundle"], engine="litert")["rows"]


def test_network_with_weights_is_measured_on_flat_validation_pictures(tmp_path):
    names = [f"n0000000{number} class {number}" for number in range(3)]
    model = toolkit.create_model("softmax_regression", num_classes=3)
    kernel, _ = model.get_weights()
    model.set_weights([np.zeros_like(kernel), np.array([0, 2, 1], np.float32)])  # the second class, whatever it sees
    weights = toolkit.save_weights(model, tmp_path / "published.safetensors")
    common = {"weights": weights, "out": tmp_path / "m", "formats": ["savedmodel"]}
    result = toolkit.import_model("softmax_regression", labels=names, **common)
    assert result["labels"] == names

    pictures = write_pictures(tmp_path / "val")
    devkit = tmp_path / "devkit"
    devkit.mkdir()
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O")]
    savemat(devkit / "meta.mat", {"synsets": np.array([(3 - n, name[:9]) for n, name in enumerate(names)], kinds)})
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n2\n1\n3\n")
    measured = toolkit.evaluate(result["bundle"], pictures, imagenet=devkit)
    assert (measured["n"], measured["top1"]) == (4, 0.5)
    assert measured["per_class"] == {names[0]: 0.0, names[1]: 1.0, names[2]: 0.0}

    with pytest.raises(UserError, match="gone: no such folder; --imagenet wants"):
        toolkit.evaluate(result["bundle"], pictures, imagenet=tmp_path / "gone")

    for labels, more, message in (
        (names[::-1], {}, "n00000001 in line 2 comes after n00000002"),
        (names, {"preprocessing": "imagenet"}, "published weights bring their own"),
        (names, {"weights": "imagenet"}, "softmax_regression"),
    ):
        with pytest.raises(UserError, match=message):
            toolkit.import_model("softmax_regression", labels=labels, **{**common, "out": tmp_path / "n", **more})
    with pytest.raises(UserError, match="published weights do not bring the names of their classes; give them with"):
        toolkit.import_model("softmax_regression", weights=weights, out=tmp_path / "n")
    with pytest.raises(UserError, match="the network softmax_regression needs --weights"):
        toolkit.import_model("softmax_regression", labels=names, out=tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_labels_are_counted_before_pictures_are_read(theirs, make_folder, tmp_path, monkeypatch):
    home, _ = theirs
    photos = make_folder(tmp_path / "photos", {"ant": 2, "wasp": 2})
    monkeypatch.setattr(steps, "scan", lambda *_: pytest.fail("the pictures are read"))
    with pytest.raises(UserError, match="the network has 3 outputs, but 2 labels were given"):
        toolkit.import_model(home / "model.keras", labels=["ant", "wasp"], data=photos, out=tmp_path / "m")
    monkeypatch.setattr(steps, "_opened", lambda *_: pytest.fail("the network is opened"))
    with pytest.raises(UserError, match=r"photos: class 'wasp' is none of the classes ant, bee, fly"):
        toolkit.import_model(home / "model.keras", labels=["ant", "bee", "fly"], data=photos, out=tmp_path / "m")
    with pytest.raises(UserError, match=r"imagenet of googlenet has 1,000 outputs, but 3 labels .* --labels wants"):
        toolkit.import_model("googlenet", weights="imagenet", labels=["ant", "bee", "fly"], out=tmp_path / "m")


@pytest.mark.parametrize(
    ("file", "labels", "message"),
    [
        ("gone.keras", "labels.txt", "gone.keras: no such file"),
        ("model.onnx", "labels.txt", "model.onnx: is no ONNX file, or is cut off"),
        ("model.pt", "labels.txt", "model.pt: expected a .keras or .h5 file .* torch.onnx.export"),
        ("model.keras", "gone.txt", "gone.txt: no such file"),
        ("model.keras", "empty.txt", "expected class names, one a line"),
        ("model.keras", "model.keras", "model.keras: not a text; expected class names, one a line"),
        ("model.keras", "two.txt", "the network has 3 outputs, but 2 labels were given; --labels wants"),
    ],
)
def test_mistakes_are_told(theirs, file, labels, message, tmp_path):
    home, _ = theirs
    (home / "model.onnx").write_bytes(b"onnx")
    (home / "model.pt").write_bytes(b"PK")
    (home / "empty.txt").write_text("\n")
    (home / "two.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=message):
        toolkit.import_model(home / file, labels=home / labels, out=tmp_path / "saved_models" / "mine")
    assert not (tmp_path / "saved_models" / "mine").exists()


@pytest.mark.slow
def test_an_onnx_file_becomes_a_bundle_that_is_served_verified_and_compressed(make_folder, tmp_path):
    """A network as torch writes it, channels first."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from starlette.testclient import TestClient

    from toolkit.serving import create_app

    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (2, 8), "fc.bias": (2,)}
    arrays = [onnx.numpy_helper.from_array(rng.normal(0, 0.5, shapes[name]).astype("f"), name) for name in shapes]
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        *(node("Relu", ["a"], ["b"]), node("GlobalAveragePool", ["b"], ["c"]), node("Flatten", ["c"], ["d"])),
        node("Gemm", ["d", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    ends = value("x", 1, ["n", 3, *SIZE]), value("logits", 1, ["n", 2])
    graph = onnx.helper.make_graph(nodes, "torch", ends[:1], ends[1:], arrays)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "theirs.onnx")
    photos = make_folder(tmp_path / "photos", {"ant": 12, "bee": 12})
    place = tmp_path / "saved_models" / "theirs"
    whole = replace(IMAGENET, crop_fraction=1.0)  # so that arrays of the network's size are taken as they are
    result = toolkit.import_model(
        tmp_path / "theirs.onnx", labels=["ant", "bee"], preprocessing=whole, data=photos, out=place, examples=2
    )
    assert {"savedmodel", "litert", "litert-int8"} <= set(result["parity"])
    assert read_manifest(place / "1").preprocessing == whole.resized(SIZE)

    pixels = rng.integers(0, 256, (5, *SIZE, 3), np.uint8)
    factor, offset = IMAGENET.affine()
    inputs = (pixels * np.float32(factor) + np.float32(offset)).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(str(tmp_path / "theirs.onnx"))
    expected = softmax(session.run(None, {"x": inputs})[0])
    for engine in FLOAT_ENGINES:
        found = toolkit.Predictor.load(place, engine).probabilities(pixels)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=engine)

    assert toolkit.verify_version(place)
    with TestClient(create_app(place.parent)) as client:
        picture = (photos / "ant" / "000.png").read_bytes()
        body = {"instances": [{"b64": base64.b64encode(picture).decode()}]}
        answer = client.post("/v1/models/theirs:predict", json=body)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["predictions"][0]["top_labels"]) == {"ant", "bee"}
    compressed = toolkit.compress(place, method="int8", data=photos, force=True)
    assert compressed["bundle"].endswith("2")
