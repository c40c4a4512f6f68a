import importlib.util

import numpy as np
import pytest

from toolkit.bundle import INT8_LITERT, litert_file, read_examples, read_manifest, verify_files
from toolkit.compress import operator_report
from toolkit.data import Split
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.workflows import compress_bundle
from toolkit.workflows.compress import COMPRESSION_METHODS, CompressionOptions, training_parts

needs_worker = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs toolkit[compress]"
)
BRIEF = CompressionOptions(epochs=1)


@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("int8", 0.27),
        pytest.param("dynamic", 0.32, marks=pytest.mark.slow),
        pytest.param("float16", 0.55, marks=pytest.mark.slow),
        pytest.param("int16x8", 0.28, marks=pytest.mark.slow),
    ],
)
def test_each_method_writes_a_bundle_and_measures_it(bundle_copy, digits, held_out_decoded, tmp_path, method, share):
    page = tmp_path / "report.html"
    result = compress_bundle(bundle_copy, method, data=digits, options=CompressionOptions(page=page))
    assert ("<h2>Ranges</h2>" in page.read_text()) == (method in ("int8", "int16x8"))
    assert len(held_out_decoded) == len(set(held_out_decoded)) == 359
    path = bundle_copy.parent / "2"
    assert result["bundle"] == str(path)
    assert result["bytes"] == (path / litert_file(method)).stat().st_size < share * result["float_bytes"]
    assert abs(result["top1"] - result["float_top1"]) < 0.01
    reference, row = result["report"]["rows"]
    assert (reference["method"], row["method"]) == ("float", method)
    assert row["verdict"].startswith(method)
    verify_files(path, read_manifest(path))
    assert f"top1_litert-{method}" in read_manifest(path).metrics
    assert [example.label for example in read_examples(path)] == ["0", "1", "2"]
    assert read_manifest(path).ground == read_manifest(bundle_copy).ground
    (answer,) = Predictor.load(path, engine=f"litert-{method}").predict([np.zeros((32, 32, 3), np.uint8)])
    assert len(answer) == 5


def test_what_chooses_among_epochs_is_not_reported_on():
    pictures = [Subset(tuple(f"{name}{i}" for i in range(10)), tuple(range(10))) for name in "abc"]
    assert training_parts(Split(*pictures)) == (pictures[0], pictures[1])
    train, validation = training_parts(Split(pictures[0], pictures[1], Subset((), ())))
    assert validation == Subset(("a0", "a5"), (0, 5))
    assert sorted(train.paths + validation.paths) == sorted(pictures[0].paths)


@needs_worker
@pytest.mark.slow
def test_a_quantization_aware_trained_file_is_the_bundles_int8(bundle_copy, digits, tmp_path):
    told = []
    page = tmp_path / "report.html"
    options = CompressionOptions(epochs=1, progress=told.append, page=page)
    result = compress_bundle(bundle_copy, "qat", data=digits, options=options)
    path = bundle_copy.parent / "2"
    assert operator_report(path / INT8_LITERT).float_outputs == ()
    assert result["kept_float"] == []
    assert (path / INT8_LITERT).read_bytes() != (bundle_copy / INT8_LITERT).read_bytes()
    assert [event["event"] for event in told] == ["stage", "epoch", "stage"]
    picture = np.zeros((32, 32, 3), np.uint8)
    for engine in ("litert-int8", "openvino-int8"):
        (answer,) = Predictor.load(path, engine=engine).predict([picture])
        assert len(answer) == 5
    assert page.read_text().count("<svg") == 1


@needs_worker
@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in COMPRESSION_METHODS if "prune" in m or "cluster" in m])
def test_methods_follow_on_each_other(bundle_copy, digits, method):
    result = compress_bundle(bundle_copy, method, data=digits, options=BRIEF, force=True)
    row = result["report"]["rows"][1]
    if "prune" in method:
        assert row["gzip_bytes"] < 0.75 * (result["bytes"])
    if "int8" in method or "qat" in method:
        assert row["operators"]["float_outputs"] == ()
        assert result["bytes"] < 0.28 * result["float_bytes"]
    else:
        assert result["bytes"] == pytest.approx(result["float_bytes"], rel=0.01)
    assert (bundle_copy.parent / "2").is_dir()


@pytest.mark.slow
def test_the_worst_layers_stay_in_float(bundle_copy, digits):
    options = CompressionOptions(keep_float=("stage1_conv",), keep_worst=1)
    result = compress_bundle(bundle_copy, "int8", data=digits, options=options)
    assert "stage1_conv" in result["kept_float"]
    assert len(result["kept_float"]) > 1
    assert result["report"]["rows"][1]["operators"]["by_type"]["float32"] >= 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("int4", {}, "unknown method 'int4'"),
        ("int8", {"keep_float": ("conv9",)}, "unknown layer 'conv9'"),
        ("prune", {"sparsity": 2.0}, "sparsity must lie between 0 and 1"),
    ],
)
def test_bad_requests_leave_nothing_behind(bundle_copy, digits, method, options, message):
    with pytest.raises(UserError, match=message):
        compress_bundle(bundle_copy, method, data=digits, options=CompressionOptions(**options))
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]


@pytest.mark.slow
def test_too_much_lost_is_refused_unless_forced(bundle_copy, digits, monkeypatch):
    """A network pruned of nearly everything and not trained on."""
    import toolkit.compress

    def ruined(model, *args, **kwargs):
        copy = model.__class__.from_config(model.get_config())
        copy.set_weights([0 * weight for weight in model.get_weights()])
        return copy

    monkeypatch.setattr(toolkit.compress, "prune", ruined)
    with pytest.raises(UserError, match=r"not written: prune costs \d+.\d points of top-1.*--force"):
        compress_bundle(bundle_copy, "prune", data=digits)
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]
