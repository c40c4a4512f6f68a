"""Bad input: one clear line on stderr, exit status 2, nothing half-written."""

import io
import json
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from forked import run_command as run
from PIL import Image


def assert_one_clear_line(result: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("toolkit: error: ")
    for fragment in fragments:
        assert fragment in lines[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.jpg")
    return tmp_path / "data"


def train(folder: Path, *extra: object) -> subprocess.CompletedProcess[str]:
    export = folder.parent / "saved_models" / "x"
    return run("train", folder, "--model", "lenet5", "--out", "run", "--export", export, *extra, cwd=folder.parent)


def assert_nothing_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.parent.iterdir()) in (["data"], [])


def huge_png() -> bytes:
    """A valid header that announces 40,000 × 40,000 RGB pixels, and hardly any data."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_missing_folder(tmp_path):
    assert_one_clear_line(train(tmp_path / "data"), str(tmp_path / "data"), "no such folder")
    assert_nothing_written(tmp_path / "data")


def test_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    assert_one_clear_line(train(tmp_path / "data"), "no class folders")
    assert_nothing_written(tmp_path / "data")


def test_one_class(folder):
    for path in (folder / "dogs").iterdir():
        path.unlink()
    (folder / "dogs").rmdir()
    assert_one_clear_line(train(folder), "only one class ('cats')", "at least two")
    assert_nothing_written(folder)


def test_truncated_jpeg(folder):
    path = folder / "cats" / "3.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    assert_one_clear_line(train(folder), str(path), "truncated", "--skip-bad")
    assert_nothing_written(folder)


def test_text_named_jpg(folder):
    (folder / "cats" / "notes.jpg").write_text("not a picture")
    assert_one_clear_line(train(folder), "notes.jpg", "not a picture in a supported format")
    assert_nothing_written(folder)


def test_huge_png_header(folder):
    (folder / "cats" / "huge.png").write_bytes(huge_png())
    assert_one_clear_line(train(folder), "huge.png", "pixels", "refused")
    assert_nothing_written(folder)


def test_several_bad_files_are_counted(folder):
    for index in range(3):
        (folder / "cats" / f"notes{index}.jpg").write_text("not a picture")
    assert_one_clear_line(train(folder), "and 2 more")


def test_check_reports_what_train_refuses(folder):
    (folder / "cats" / "notes.jpg").write_text("not a picture")
    result = run("check", folder, "--json", cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["n"] == 12
    assert [problem["path"] for problem in report["corrupt"]] == ["cats/notes.jpg"]


def test_unknown_model_suggests_the_nearest(folder):
    result = run("train", folder, "--model", "lenet6", "--out", "run", cwd=folder.parent)
    assert_one_clear_line(result, "unknown model 'lenet6'", "did you mean 'lenet5'")
    assert_nothing_written(folder)


def test_network_that_does_not_fit_the_folder(folder):
    (folder / "birds").mkdir()
    for path in (folder / "dogs").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(folder / "birds" / path.name)
    result = run("train", folder, "--model", "xo", "--out", "run", cwd=folder.parent)
    assert_one_clear_line(result, "xo", "num_classes=2", "num_classes=3")
    assert_nothing_written(folder)


def test_unknown_option_gets_the_usage_of_its_command(folder):
    result = run("predict", "bundle", folder, "--topk", 3, cwd=folder)
    assert result.returncode == 2
    usage, *_, last = result.stderr.splitlines()
    assert usage.startswith("usage: toolkit predict ")
    assert last == "toolkit predict: error: unrecognized arguments: --topk 3; did you mean --top-k?"


def test_unknown_setting_suggests_the_nearest(folder):
    assert_one_clear_line(train(folder, "--set", "optimizer.lrr=1"), "optimizer.lrr", "did you mean 'optimizer.lr'")
    assert_one_clear_line(train(folder, "--set", "run.epochs=many"), "run.epochs", "'many'")
    assert_nothing_written(folder)


def test_unknown_recipe(folder):
    assert_one_clear_line(train(folder, "--recipe", "lenets"), "unknown recipe 'lenets'", "did you mean 'lenet'")


def test_run_directory_in_use(folder):
    (folder.parent / "run").mkdir()
    (folder.parent / "run" / "precious.txt").write_text("mine")
    assert_one_clear_line(train(folder), "exists and is not a run")
    assert (folder.parent / "run" / "precious.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle of an untrained network: bad input is met before accuracy matters."""
    from toolkit import create_model, model_info
    from toolkit.export import export_bundle

    return export_bundle(
        create_model("lenet5", num_classes=2),
        tmp_path_factory.mktemp("bundles") / "pets",
        labels=("cats", "dogs"),
        preprocessing=model_info("lenet5").preprocessing,
    )


@pytest.mark.parametrize(
    ("engine", "file"),
    [("litert", "assets.extra/model.fp32.tflite"), ("savedmodel", "variables/variables.data-00000-of-00001")],
)
def test_damaged_bundle(bundle, folder, tmp_path, engine, file):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (copy / file).write_bytes(content)
    result = run("predict", copy, folder / "cats" / "0.jpg", "--engine", engine, cwd=tmp_path)
    assert_one_clear_line(result, str(copy / file), "checksum")


def test_bundle_that_is_none(folder):
    assert_one_clear_line(run("predict", folder, folder / "cats" / "0.jpg", cwd=folder.parent), "not a bundle")
    assert_one_clear_line(run("predict", "nowhere", "x.jpg", cwd=folder.parent), "nowhere: no such bundle")


def test_unknown_engine(bundle, folder):
    result = run("predict", bundle, folder / "cats" / "0.jpg", "--engine", "openvno", cwd=folder.parent)
    assert_one_clear_line(result, "unknown engine 'openvno'", "did you mean 'openvino'")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty", marks=pytest.mark.slow),
        pytest.param(b"not a picture", id="text", marks=pytest.mark.slow),
        pytest.param(huge_png(), id="huge"),
    ],
)
def test_predict_names_the_bad_picture(bundle, tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    assert_one_clear_line(run("predict", bundle, "x.jpg", cwd=tmp_path), "x.jpg: ")


def test_predict_on_a_missing_picture(bundle, tmp_path):
    assert_one_clear_line(run("predict", bundle, "gone.jpg", cwd=tmp_path), "gone.jpg: no such file")


def test_finetune_with_no_place_for_its_report(folder):
    """Said before anything is computed, which the report would come after."""
    for place, reason in (("gone/page.html", "no such folder"), (".", "it is a folder")):
        result = run("finetune", folder, "--model", "lenet5", "--out", "m/x", "--report", place, cwd=folder.parent)
        assert_one_clear_line(result, f"{place}: cannot be written ({reason})")


def test_finetune_without_such_weights(folder):
    result = run("finetune", folder, "--model", "lenet5", "--weights", "gone.keras", "--out", "m/x", cwd=folder.parent)
    assert_one_clear_line(result, "gone.keras")
    assert_nothing_written(folder)


def test_evaluate_on_other_classes(bundle, folder):
    (folder / "dogs").rename(folder / "horses")
    assert_one_clear_line(run("evaluate", bundle, folder, cwd=folder.parent), "'horses'", "cats, dogs")


def test_serve_and_demo_without_bundles(tmp_path):
    (tmp_path / "saved_models").mkdir()
    assert_one_clear_line(run("serve", "saved_models", cwd=tmp_path), "saved_models")
    assert_one_clear_line(run("demo", "saved_models", cwd=tmp_path), "saved_models")


def test_places_that_cannot_be_written(folder):
    file = folder / "cats" / "0.jpg"
    export = run("train", folder, "--model", "lenet5", "--out", "run", "--export", file / "x", cwd=folder.parent)
    assert_one_clear_line(export, str(file), "not a writable folder", "--export")
    out = run("train", folder, "--model", "lenet5", "--out", file / "run", cwd=folder.parent)
    assert_one_clear_line(out, str(file), "not a writable folder", "--out")
    assert_nothing_written(folder)


@pytest.mark.parametrize("option", [("--top-k", "0"), ("--top-k", "many")])
def test_numbers_out_of_range(tmp_path, option):
    result = run("predict", "bundle", "x.jpg", *option, cwd=tmp_path)
    assert result.returncode == 2
    assert "--top-k" in result.stderr.splitlines()[-1]


def test_wrong_usage_exits_with_2(tmp_path):
    result = run("train", cwd=tmp_path)
    assert result.returncode == 2
    assert "required" in result.stderr
    assert "Traceback" not in result.stderr


def test_huge_png_is_what_it_says():
    with pytest.raises(Image.DecompressionBombError, match="1600000000 pixels"):
        Image.open(io.BytesIO(huge_png()))


def test_network_that_cannot_be_drawn_there(tmp_path):
    assert_one_clear_line(run("models", "lenet5", "--draw", "a.pdf", cwd=tmp_path), "'a.pdf'", ".svg or .png")
    assert_one_clear_line(run("models", "lenet5", "--draw", "no/a.svg", cwd=tmp_path), "no folder no")
    assert_one_clear_line(run("models", "--draw", "a.svg", cwd=tmp_path), "give its name")
    assert_one_clear_line(run("models", "lenet5", "--filters", "a.svg", cwd=tmp_path), "leave out lenet5")
    assert not list(tmp_path.iterdir())


def test_a_run_is_named_or_begun(folder):
    home = folder.parent
    assert_one_clear_line(run("train", folder, "--out", "run", cwd=home), "DATA, --model and --out are required")
    assert_one_clear_line(run("train", "--resume", cwd=home), "--resume RUN to go on with a run")
    assert_one_clear_line(run("train", "--resume", "run", cwd=home), "run: holds no run to go on with")
    two = run("train", folder, "--resume", "run", "--out", "other", cwd=home)
    assert_one_clear_line(two, "--resume run and --out other name two runs")
    assert_nothing_written(folder)
