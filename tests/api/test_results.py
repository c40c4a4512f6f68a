"""Results of calls: documents that show themselves, make pages and export."""

import inspect
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit.api.options import RUN_FILE, write_options
from toolkit.api.results import Page, Trained
from toolkit.api.training import _data_and_run
from toolkit.errors import UserError
from toolkit.training.config import apply_overrides, config_as_json
from toolkit.training.recipes import recipe
from toolkit.workflows.run_command import RunCommand


@pytest.fixture(scope="module")
def finetuned(few, bundle, tmp_path_factory):
    """A network fine-tuned on a few digits, not exported."""
    cache = tmp_path_factory.mktemp("cache")
    views = np.int64(1)  # as a loop of somebody's own gives numbers
    return toolkit.finetune(few, model="lenet5", weights=bundle, views=views, cache=cache, unfreeze="none")


def test_finetune_writes_nothing_until_it_is_told_to(finetuned, tmp_path):
    assert "bundle" not in finetuned
    assert json.loads(json.dumps(finetuned))["accuracy"] == finetuned["accuracy"]
    assert finetuned.model.output_shape == (None, 3)
    assert "accuracy" in repr(finetuned)

    path = finetuned.export(tmp_path / "saved_models" / "mine", formats=["savedmodel"])
    assert path == tmp_path / "saved_models" / "mine" / "1" == Path(finetuned["bundle"])
    assert str(path) in repr(finetuned)
    noted = tomllib.loads((path / "assets.extra" / "run.toml").read_text())
    assert noted["model"] == "lenet5"
    assert (noted["formats"], noted["views"]) == (["savedmodel"], 1)
    assert noted["out"] == str(tmp_path / "saved_models" / "mine")
    assert "max_ms" not in noted


def test_report_of_a_fine_tuning_is_the_page_with_the_curve(finetuned, tmp_path):
    page = finetuned.report()
    assert "Would more pictures help?" in page.html
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html


def test_a_place_that_cannot_be_written_is_refused(finetuned):
    with pytest.raises(UserError, match="cannot be created"):
        finetuned.export("/proc/mine")


def test_pages_keep_their_style_to_themselves():
    shown = Page('<p class="a">1 < 2</p>')._repr_html_()
    assert shown.startswith("<iframe")
    assert 'srcdoc="&lt;p class=&quot;a&quot;&gt;1 &lt; 2&lt;/p&gt;"' in shown


def test_predictions_are_rows_and_pictures(bundle, few, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = toolkit.predict(bundle, [few / "0" / "0000.png", tmp_path / "bad.png"], top_k=2, engine="litert")
    assert [len(row.get("predictions", ())) for row in found] == [2, 0]
    assert found.labels[1] is None
    assert found._repr_html_().count("<img") == 1
    assert str(tmp_path / "bad.png") in repr(found)
    assert found.report().html.startswith("<!doctype html>")


def test_predictions_of_pictures_that_are_no_files(bundle, few):
    picture = Image.open(sorted((few / "0").iterdir())[0])
    array = np.asarray(picture.convert("RGB"))
    for images in (picture, array, [array, picture], np.stack([array, array])):
        found = toolkit.predict(bundle, images, engine="litert")
        assert [row["path"] for row in found] == [f"images[{index}]" for index in range(len(found))]
        assert {row["predictions"][0]["label"] for row in found} == {"0"}
        assert found._repr_html_().count("<img") == len(found)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no pictures were given"),
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (["*.nothing"], "nothing: no file matches"),
        (3, "expected a path, .*; got int"),
    ],
)
def test_nothing_to_predict_is_said(bundle, images, message):
    with pytest.raises(UserError, match=message):
        toolkit.predict(bundle, images)


def test_folder_of_pictures_is_what_the_command_would_answer(bundle, few):
    found = toolkit.predict(bundle, few, engine="litert")
    assert len(found) == 36
    assert [row["path"] for row in found] == sorted(map(str, few.rglob("*.png")))


def test_evaluation_and_check_make_pages(bundle, few):
    measured = toolkit.evaluate(bundle, few, engine="litert", subset="all")
    assert measured["n"] == 36
    assert "accuracy" in repr(measured)
    assert "recall %" in measured.report().html
    checked = toolkit.check(few)
    assert checked["n"] == 36
    assert "36 pictures in 3 classes" in checked._repr_html_()
    assert checked.report().html.count("<table>") >= 1


def test_check_shows_the_pictures_it_speaks_of(few, tmp_path):
    import shutil

    copy = shutil.copytree(few, tmp_path / "digits")
    shutil.copy(copy / "0" / "0000.png", copy / "0" / "again.png")
    page = toolkit.check(copy).report().html
    assert "Identical: 1" in page
    assert "0/again.png" in page
    assert "data:image/jpeg" in page


def test_arguments_that_a_call_has_not_are_refused(few):
    with pytest.raises(TypeError, match="modle"):
        toolkit.finetune(few, modle="lenet5")


def test_run_that_went_on_notes_all_that_it_was_begun_with(tmp_path):
    command = RunCommand(
        str(tmp_path / "photos"), "lenet5", "lenet", {"fold 1": "train"}, skip_bad=True, track=("mlflow",)
    )
    config = apply_overrides(recipe("lenet"), ["run.batch_size=8", "optimizer.lr=0.5"])
    (tmp_path / "command.json").write_text(command.as_json())
    (tmp_path / "config.json").write_text(config_as_json(config))
    signature = inspect.signature(toolkit.train).parameters
    options = {name: parameter.default for name, parameter in signature.items()} | {"resume": str(tmp_path)}
    found = options | Trained(run=str(tmp_path), metrics={}).resolved(options)
    assert found["set"] == ("optimizer.lr=0.5", "run.batch_size=8")
    assert (found["out"], found["resume"]) == (str(tmp_path), None)
    write_options(tmp_path, "train", found)
    noted = tomllib.loads((tmp_path / RUN_FILE).read_text())
    assert noted["data"] == str(tmp_path / "photos")
    assert (noted["split_folders"], noted["skip_bad"], noted["track"]) == ("train=fold 1", True, ["mlflow"])


def test_a_run_may_be_named_twice_but_not_two_runs(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    assert _data_and_run(None, run, run) == (None, Path(run))
    assert _data_and_run(None, other, str(tmp_path)) == (tmp_path, Path(other))  # `--resume DATA --out RUN`
    with pytest.raises(UserError, match="name two runs: leave --out out"):
        _data_and_run(None, other, run)


def test_host_that_writes_no_run_looks_for_none(tmp_path):
    assert Trained(run=str(tmp_path / "elsewhere")).resolved({"resume": True}) == {}


@pytest.mark.slow
def test_runs_export_and_bundles_compress(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = toolkit.train(few, model="lenet5", out="run", set={"run.epochs": 2, "run.batch_size": 8})
    assert "Learning curves" in run.report().html
    assert run.model.output_shape == (None, 3)
    assert run.export("saved_models/mine") == Path("saved_models/mine/1")
    assert "saved_models/mine/1" in repr(run)
    noted = tomllib.loads(Path("run/run.toml").read_text())
    assert (noted["recipe"], noted["set"]) == ("lenet", ["run.epochs=2", "run.batch_size=8"])

    small = toolkit.compress("saved_models/mine", method="float16", data=few)
    assert small["bundle"] == "saved_models/mine/2"
    assert "float16" in small.report().html
    assert tomllib.loads(Path("saved_models/mine/2/assets.extra/run.toml").read_text())["method"] == "float16"
    again = toolkit.compress("saved_models/mine", method="float16", data=few)
    assert not again["written"]
    with pytest.raises(UserError, match="nothing was measured"):
        again.report()

    toolkit.train(resume="run", set={"run.epochs": 3})
    noted = tomllib.loads(Path("run/run.toml").read_text())
    assert (noted["out"], noted["set"]) == ("run", ["run.epochs=3", "run.batch_size=8"])
    assert noted["export"] == str(tmp_path / "saved_models" / "mine")
