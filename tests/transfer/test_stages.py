from itertools import pairwise

import keras
import numpy as np
import pytest
from interpreted import interpreted
from networks import small_residual
from PIL import Image

from toolkit import create_model
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.engines.extract import Extractor, relative_difference
from toolkit.errors import UserError
from toolkit.models import NETWORKS
from toolkit.spec import Preprocessing
from toolkit.transfer import AugmentedViews, Extraction, FeatureExtractor
from toolkit.transfer.freeze import cut_tensor, stages_of
from toolkit.transfer.heads.feature_set import FeatureSet, bounded_deviation
from toolkit.transfer.heads.head import Head, moments
from toolkit.transfer.stages import pooled_cuts, stitch

PREPROCESSING = Preprocessing(size=(32, 32))
CUTS = ("stage1_out", "stage2_out", "head_pool")
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def small():
    """Not to be changed."""
    return small_residual()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eleven pictures of coloured noise."""
    folder = tmp_path_factory.mktemp("noise")
    for number in range(11):
        pixels = RNG.integers(0, 256, (4, 4, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the batches that went through an engine, and how many cuts each answered."""
    seen = []
    answers = Extractor.answers

    def counted(self, pixels):
        found = answers(self, pixels)
        seen.append((len(pixels), len(found)))
        return found

    monkeypatch.setattr(Extractor, "answers", counted)
    return seen


def extract(model, paths, cache_dir, cuts, views=None, **how):
    how = Extraction(**{"dtype": "float32", "engine": "keras", "batch_size": 4, **how})
    with FeatureExtractor(model, PREPROCESSING, cache_dir=cache_dir, how=how, cuts=cuts) as extractor:
        return extractor.extract_cuts(paths, views=views)


def inputs_from(paths):
    return normalize(load_pixels(paths, PREPROCESSING), PREPROCESSING)


def random_head(width, num_classes=3, hidden=()):
    sizes = (width, *hidden, num_classes)
    layers = [(RNG.normal(size=pair), RNG.normal(size=pair[1])) for pair in pairwise(sizes)]
    return Head(tuple((k.astype(np.float32), b.astype(np.float32)) for k, b in layers), "lbfgs", 1.0)


# --- where a network is cut


@pytest.mark.parametrize("info", NETWORKS, ids=lambda info: info.name)
def test_every_network_has_cuts_that_end_at_its_pooled_features(info, outline):
    model = outline(info.name)
    cuts = pooled_cuts(model)
    last = cut_tensor(model)
    assert cuts[-1].width == last.shape[-1]
    assert len(cuts[-1].tensor.shape) == 2
    if last.name != "head_features":
        assert cuts[-1].tensor.shape == last.shape
    assert 1 <= len(cuts) <= 12
    assert len({cut.name for cut in cuts}) == len(cuts)
    layers = [layer.name for layer in model.layers]
    places = [layers.index(cut.name) for cut in cuts if cut.name in layers]
    assert places == sorted(places)
    if "_" not in info.name and info.name not in ("mlp", "xo"):
        assert len(cuts) >= 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "googlenet",
            [f"stage3_{x}_concat" for x in "ab"]
            + [f"stage4_{x}_concat" for x in "abcde"]
            + ["stage5_a_concat", "head_dropout"],
        ),
        (
            "resnet18",
            [*(f"stage{s}_block{b}_out" for s in (1, 2, 3) for b in (1, 2)), "stage4_block1_out", "head_pool"],
        ),
        ("resnet50", ["stage1_block3_out", "stage2_block4_out", "stage3_block6_out", "head_pool"]),
        ("vgg16", [*(f"stage{s}_relu{2 if s < 3 else 3}" for s in range(1, 6)), "head_fc1", "head_drop2"]),
        ("nin_cifar", ["stage1_conv3", "stage2_conv3", "head_features"]),
    ],
)
def test_cuts_are_the_blocks(name, expected, outline):
    cuts = pooled_cuts(outline(name))
    assert [cut.name for cut in cuts] == expected


@pytest.mark.parametrize(
    ("name", "widths"), [("MobileNetV2", [144, 192, 576, 1280]), ("ResNet50V2", [256, 512, 1024, 2048])]
)
def test_foreign_networks_are_cut_and_stitched_too(name, widths):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), include_top=False)
    cuts = pooled_cuts(model)
    assert [cut.width for cut in cuts] == widths
    chosen = FeatureSet(tuple(cut.name for cut in cuts), normalized=True)
    head = random_head(sum(widths))
    x = RNG.normal(size=(2, 64, 64, 3)).astype(np.float32)
    features = keras.Model(model.input, [cut.pooled() for cut in cuts])(x, training=False)
    flat = stitch(model, chosen, head)
    expected = head.logits(chosen.join(dict(zip(chosen.cuts, map(np.asarray, features), strict=True))))
    np.testing.assert_allclose(flat(x, training=False), expected, atol=1e-4)


# --- extraction


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_all_cuts_come_out_of_one_pass(engine, small, pictures, tmp_path, passes, told):
    cuts = pooled_cuts(small)
    found = extract(small, pictures, tmp_path, cuts, engine=engine)
    assert tuple(found) == CUTS
    proof = passes[: len(passes) - 3]  # OpenVINO has to answer as Keras does first
    assert len(proof) <= 2
    assert sum(size for size, _ in passes[-3:]) == 11
    assert {count for _, count in passes} == {3}
    assert told[-1][1:] == (11, 11)  # pictures, not cuts
    inputs = inputs_from(pictures)
    for name, features in found.items():
        maps = keras.Model(small.input, small.get_layer(name).output)(inputs, training=False).numpy()
        expected = maps.mean(axis=(1, 2)) if maps.ndim == 4 else maps
        assert features.num_computed == 11
        assert relative_difference(features.plain, expected) < (1e-5 if engine == "keras" else 2e-2)
    again = extract(small, pictures, tmp_path, cuts, engine=engine)
    assert {features.num_computed for features in again.values()} == {0}
    for name, features in found.items():
        np.testing.assert_array_equal(again[name].values, features.values)


def test_pooled_features_keep_their_key(small, pictures, tmp_path, passes):
    cuts = pooled_cuts(small)
    how = Extraction(dtype="float32", engine="keras", batch_size=4)
    with FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path, how=how) as extractor:
        alone = extractor.extract(pictures)
        context = extractor.context
    with FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path, how=how, cuts=cuts) as extractor:
        assert extractor.context == context
        passes.clear()
        found = extractor.extract_cuts(pictures)
        assert [features.num_computed for features in found.values()] == [11, 11, 0]
        assert {count for _, count in passes} == {2}  # the network ends at the last cut that is missing
    np.testing.assert_array_equal(found["head_pool"].values, alone.values)


def test_only_what_is_missing_is_computed(small, pictures, tmp_path, passes):
    cuts = pooled_cuts(small)
    extract(small, pictures[:3], tmp_path, cuts[:1])
    extract(small, pictures[2:5], tmp_path, cuts[1:])
    passes.clear()
    found = extract(small, pictures[:6], tmp_path, cuts)
    assert [features.num_computed for features in found.values()] == [3, 3, 3]
    assert sum(size for size, _ in passes) == 5  # the third picture is there at every cut
    every = extract(small, pictures[:6], tmp_path / "anew", cuts)
    for name, features in every.items():
        np.testing.assert_allclose(features.values, found[name].values, atol=1e-6)


def test_features_beyond_the_memory_budget_lie_on_disk(small, pictures, tmp_path):
    cuts = pooled_cuts(small)
    num_bytes = 4 * len(pictures) * 56
    for budget, kind in ((num_bytes, np.ndarray), (num_bytes - 1, np.memmap)):
        found = extract(small, pictures, tmp_path, cuts, memory_budget=budget)
        assert {type(features.values) for features in found.values()} == {kind}


def test_views_have_features_at_every_cut(small, pictures, tmp_path):
    cuts = pooled_cuts(small)
    found = extract(small, pictures[:4], tmp_path, cuts, AugmentedViews(2, seed=3))
    assert [features.values.shape for features in found.values()] == [(2, 4, 8), (2, 4, 16), (2, 4, 32)]
    alone = extract(small, pictures[:4], tmp_path / "one", cuts[1:2], AugmentedViews(2, seed=3))
    np.testing.assert_allclose(found["stage2_out"].values, alone["stage2_out"].values, atol=1e-6)


def test_mixed_precision_network_is_cut_alike(pictures, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = small_residual()
        cuts = pooled_cuts(mixed)
        how = Extraction(engine="keras")
        with FeatureExtractor(mixed, PREPROCESSING, cache_dir=tmp_path, how=how) as alone:
            context = alone.context
        with FeatureExtractor(mixed, PREPROCESSING, cache_dir=tmp_path, how=how, cuts=cuts) as several:
            assert several.context == context
            found = several.extract_cuts(pictures[:2])
    finally:
        keras.config.set_dtype_policy("float32")
    model = small_residual()
    plain = extract(model, pictures[:2], tmp_path / "float", pooled_cuts(model))
    for name, features in plain.items():
        np.testing.assert_allclose(found[name].plain, features.plain, atol=1e-3)


# --- the network with a classifier of several cuts

SETS = [
    FeatureSet(CUTS),
    FeatureSet(CUTS, normalized=True),
    FeatureSet(("stage1_out", "stage2_out"), normalized=True),
    FeatureSet(("stage1_out",)),
    FeatureSet(("head_pool",), normalized=True),
]


@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize("chosen", SETS, ids=str)
def test_stitched_network_answers_what_the_head_does_on_cached_features(small, pictures, tmp_path, chosen, hidden):
    found = extract(small, pictures, tmp_path, pooled_cuts(small))
    features = chosen.join({name: found[name].plain for name in chosen.cuts})
    head = random_head(features.shape[-1], 4, hidden)
    flat = stitch(small, chosen, head)
    logits = keras.ops.convert_to_numpy(flat(inputs_from(pictures), training=False))
    np.testing.assert_allclose(logits, head.logits(features), atol=1e-5)
    assert flat.layers[-1].name == "head_logits"
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    names = {layer.name for layer in flat.layers}
    assert ("stage3_out" in names) == ("head_pool" in chosen.cuts)
    *body, last = stages_of(flat)
    assert tuple(body) == stages_of(small)[: len(body)]
    assert last == "head"
    # and is a network that can be cut and stitched again
    again = stitch(flat, chosen, head)
    np.testing.assert_allclose(again(inputs_from(pictures), training=False), logits, atol=1e-6)


def test_classifier_of_the_same_form_is_filled_in_place():
    model = small_residual()
    head = random_head(32)
    assert stitch(model, None, head) is model
    assert stitch(model, FeatureSet(("head_pool",)), head) is model
    np.testing.assert_array_equal(model.layers[-1].kernel, head.layers[0][0])
    wider = stitch(model, None, random_head(32, 5))
    assert wider.output_shape == (None, 5)


def test_unknown_cut_is_named(small):
    with pytest.raises(UserError, match="unknown cut 'stage2_outt'; did you mean 'stage2_out'"):
        stitch(small, FeatureSet(("stage2_outt",)), random_head(16))


@pytest.mark.parametrize("cuts", [("head_pool",), ("stage1_block2_out", "head_pool")])
def test_network_with_a_classifier_of_several_cuts_is_a_backbone_for_others(cuts, tmp_path):
    keras.utils.set_random_seed(0)
    model = create_model("resnet20", num_classes=3)
    flat = stitch(model, FeatureSet(cuts, normalized=True), random_head(80 if len(cuts) > 1 else 64))
    flat.save(tmp_path / "flat.keras")
    for num_classes in (3, 4):
        again = create_model("resnet20", num_classes=num_classes, weights=tmp_path / "flat.keras")
        assert again.layers[-1].kernel.shape == (64, num_classes)
        np.testing.assert_array_equal(again.layers[1].kernel, flat.layers[1].kernel)
    assert np.abs(create_model("resnet20", num_classes=3, weights=tmp_path / "flat.keras").layers[-1].bias).max() == 0
    with pytest.raises(UserError, match="the model lacks layer 'head_cut"):
        create_model("resnet20", weights=tmp_path / "flat.keras")


@pytest.fixture(scope="module")
def joined(small, pictures):
    """A network whose classifier reads all stages, normalised; pixels of pictures, and its logits for them."""
    model = stitch(small, FeatureSet(CUTS, normalized=True), random_head(56))
    pixels = load_pixels(pictures, PREPROCESSING)
    return model, pixels, model(normalize(pixels, PREPROCESSING), training=False).numpy()


def test_stitched_network_answers_alike_in_onnx_and_openvino(joined):
    from toolkit.engines.onnx_graph import to_onnx

    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    model, pixels, expected = joined
    content = to_onnx(model, PREPROCESSING)
    answer = onnxruntime.InferenceSession(content).run(["logits"], {"pixels": pixels})[0]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    compiled = openvino.Core().compile_model(openvino.Core().read_model(content), "CPU", FLOAT32)
    np.testing.assert_allclose(compiled(pixels)["logits"], expected, atol=1e-5)


def test_stitched_network_answers_alike_saved_and_in_tf_keras(joined, tmp_path):
    from toolkit.compress.bridge import to_tf_keras
    from toolkit.network import load_network

    pytest.importorskip("tf_keras")
    model, pixels, expected = joined
    inputs = normalize(pixels, PREPROCESSING)
    np.testing.assert_allclose(to_tf_keras(model)(inputs), expected, atol=1e-5)
    model.save(tmp_path / "network.keras")
    np.testing.assert_allclose(load_network(tmp_path / "network.keras")(inputs), expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT conversion starts from TensorFlow")
def test_stitched_network_answers_alike_in_litert_and_its_int8_file_keeps_the_head_in_float(joined, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    from toolkit.engines.convert import to_litert

    openvino = pytest.importorskip("openvino")
    model, pixels, expected = joined
    inputs = normalize(pixels, PREPROCESSING)
    content = to_litert(model)
    int8 = to_litert(model, quantization="int8", calibration=[inputs], float_file=content)
    answers = {}
    for name, file in {"float": content, "int8": int8}.items():
        answers[name] = interpreted(file, inputs)
        kernel = [row for row in Interpreter(model_content=file).get_tensor_details() if set(row["shape"]) == {3, 56}]
        assert {np.dtype(row["dtype"]).name for row in kernel} == {"float32"}
        (tmp_path / f"{name}.tflite").write_bytes(file)
        compiled = openvino.Core().compile_model(tmp_path / f"{name}.tflite", "CPU", FLOAT32)
        np.testing.assert_allclose(compiled(inputs)[0], answers[name], atol=1e-4 if name == "float" else 0.1)
    np.testing.assert_allclose(answers["float"], expected, atol=1e-5)
    error = np.sqrt(np.mean((answers["int8"] - expected) ** 2)) / expected.std(axis=0).mean()
    assert error < 0.1


# --- a head that quantizes


def test_features_that_almost_never_vary_cannot_dominate_the_kernel():
    features = RNG.normal(3, 1, (500, 64)).astype(np.float32)
    features[:, 0] = 0.01
    features[7, 0] = 0.02  # constant but for one picture
    features[:, 1:40] = 5
    _, std = moments(features / 100)
    assert std[0] < 1e-5
    bounded = bounded_deviation(std)
    assert bounded[0] == pytest.approx(0.001, rel=0.1)
    np.testing.assert_array_equal(bounded[1:], std[1:])
    np.testing.assert_allclose(bounded_deviation((features / 100).std(axis=0))[1:40], bounded[0], rtol=1e-3)


def test_deviations_are_bounded_cut_by_cut():
    bounded = bounded_deviation(np.array([100.0, 100.0, 2.0, 2.0, 0.01, 0.0, 0.0]), (2, 3, 2))
    np.testing.assert_allclose(bounded, [100, 100, 2, 2, 0.2, 1, 1])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT conversion starts from TensorFlow")
def test_int8_file_keeps_the_accuracy_of_a_head_on_nearly_dead_features():
    from sklearn.linear_model import LogisticRegression

    from toolkit.engines.convert import to_litert

    rng = np.random.default_rng(3)
    model = small_residual()
    norm = model.get_layer("stage3_bn")
    norm.gamma.assign(np.where(np.arange(32) < 8, 1e-3, 1.0))  # a quarter of the features hardly varies
    norm.beta.assign(np.ones(32))
    labels = rng.integers(0, 3, 400)
    inputs = rng.normal(0, 0.3, (400, 32, 32, 3)) + np.eye(3)[labels][:, None, None] * 0.15
    inputs = inputs.astype(np.float32)
    features = keras.Model(model.input, model.get_layer("head_pool").output)(inputs, training=False).numpy()
    mean, std = features.mean(axis=0), bounded_deviation(features.std(axis=0))
    probe = LogisticRegression(C=0.1).fit((features - mean) / std, labels)
    kernel = (probe.coef_.T / std[:, None]).astype(np.float32)
    assert np.abs(kernel).max() < 100 * np.median(np.abs(kernel[8:]))
    head = Head(((kernel, (probe.intercept_ - mean @ kernel).astype(np.float32)),), "lbfgs", 0.1)
    content = to_litert(stitch(model, None, head), quantization="int8", calibration=[inputs[:100]])
    answers = interpreted(content, inputs)
    accuracy = np.mean(head.logits(features).argmax(axis=1) == labels)
    assert accuracy > 0.8
    assert np.mean(answers.argmax(axis=1) == labels) >= accuracy - 0.005
