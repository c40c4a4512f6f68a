"""A run knows what it was begun with: it goes on by itself, takes more epochs, and says what it cannot change."""

import csv
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolkit import create_model, save_weights
from toolkit.bundle import read_manifest
from toolkit.errors import UserError
from toolkit.network import load_network
from toolkit.training.run_dir import RunDirectory
from toolkit.workflows import ExportOptions, TrainOptions, train
from toolkit.workflows.train import train_folder

FLAT = ("optimizer.schedule=constant", "optimizer.warmup_epochs=0", "run.batch_size=16", "run.gradient_norms=false")


def begin(data: Path, out: Path, *settings: str, epochs: int = 2, **options) -> dict:
    chosen = (*FLAT, f"run.epochs={epochs}", *settings)
    return train_folder(data, "softmax_regression", out=out, options=TrainOptions(overrides=chosen, **options))


def go_on(out: Path, *settings: str, **options) -> dict:
    return train_folder(out=out, options=TrainOptions(overrides=settings, resume=True), **options)


def weights(run: Path) -> np.ndarray:
    return np.concatenate([own.ravel() for own in load_network(run / "model.keras").get_weights()])


def epochs_of(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two_epochs(few) -> Path:
    begin(few, few.parent / "two")
    return few.parent / "two"


@pytest.fixture(scope="module")
def four_epochs(few) -> Path:
    begin(few, few.parent / "four", epochs=4)
    return few.parent / "four"


@pytest.fixture
def two(two_epochs, tmp_path) -> Path:
    """A finished run, to be changed."""
    return Path(shutil.copytree(two_epochs, tmp_path / "two"))


def test_a_killed_run_goes_on_by_its_name_alone(few, four_epochs, tmp_path, monkeypatch):
    """From another folder, with the data, the settings and the export that it was begun with."""
    exported = []
    monkeypatch.setattr(
        train, "export_held_out", lambda *a, **k: (exported.append(a[4]), (tmp_path / "m" / "1", {}))[1]
    )

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.chdir(few.parent)
    options = TrainOptions(overrides=(*FLAT, "run.epochs=4"))
    export = ExportOptions(Path("m"), num_examples=3)
    with pytest.raises(KeyboardInterrupt):
        train_folder(
            few.name, "softmax_regression", out=tmp_path / "run", options=options, export=export, epoch_report=stop
        )
    monkeypatch.chdir(tmp_path)
    go_on(Path("run"))
    np.testing.assert_array_equal(weights(tmp_path / "run"), weights(four_epochs))
    assert epochs_of(tmp_path / "run") == [1, 2, 3, 4]
    assert exported == [ExportOptions(few.parent / "m", num_examples=3)]
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert go_on(Path("run"))["bundle"] == str(tmp_path / "m" / "1")
    assert len(exported) == 1
    # Killed in exporting the network of more epochs, a run does not take the bundle of the former one for its own.
    write_bundle = train.export_held_out
    monkeypatch.setattr(train, "export_held_out", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        go_on(Path("run"), "run.epochs=5")
    monkeypatch.setattr(train, "export_held_out", write_bundle)
    go_on(Path("run"))
    assert len(exported) == 2


def test_a_second_process_is_kept_out_of_a_run(two):
    """Both would append to its metrics and remove each other's checkpoints, and it could not go on after that."""
    held = RunDirectory(two)
    held.hold()
    with pytest.raises(UserError, match="another process is at it; wait, or name another --out"):
        go_on(two, "run.epochs=3")
    held.close()
    go_on(two, "run.epochs=3")
    assert epochs_of(two) == [1, 2, 3]


def test_a_mounted_volume_is_refused_before_anything_takes_long(few, tmp_path, monkeypatch):
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "volume")
    with pytest.raises(UserError, match=r"volume: a mounted volume, .* name a folder in it, .*volume/run"):
        begin(few, tmp_path / "volume")


def test_more_epochs_go_on_to_what_as_many_from_the_start_give(two, two_epochs, four_epochs):
    go_on(two, "run.epochs=4")
    np.testing.assert_array_equal(weights(two), weights(four_epochs))
    assert epochs_of(two) == [1, 2, 3, 4]
    assert (two / "model-epoch-0002.keras").read_bytes() == (two_epochs / "model.keras").read_bytes()
    assert json.loads((two / "config.json").read_text())["run"]["epochs"] == 4
    assert "4 epochs" in (two / "report.html").read_text()


def test_a_schedule_that_spans_the_run_says_what_more_epochs_make_of_it(few, tmp_path, caplog):
    caplog.set_level("INFO", "toolkit")
    begin(few, tmp_path / "run", "optimizer.schedule=cosine")
    go_on(tmp_path / "run", "run.epochs=4")
    [line] = [record.message for record in caplog.records if "schedule" in record.message]
    assert line.startswith(
        "the cosine schedule spans 4 epochs from now on: after epoch 2 the learning rate is 0.0015, "
    )
    assert "which was to be 0." in line
    assert epochs_of(tmp_path / "run") == [1, 2, 3, 4]


def test_killed_while_it_was_given_more_epochs_a_run_is_whole(two, two_epochs, monkeypatch):
    from toolkit.training.run_dir import RunDirectory

    monkeypatch.setattr(RunDirectory, "write_text", lambda *_: pytest.exit("killed"))
    with pytest.raises(pytest.exit.Exception):
        go_on(two, "run.epochs=4")
    monkeypatch.undo()
    assert not (two / "model.keras").exists()
    go_on(two)
    np.testing.assert_array_equal(weights(two), weights(two_epochs))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("run.epochs=1",), r"two: is past epoch 1 of 2 already; run\.epochs can only be more"),
        (
            ("optimizer.lr=0.5", "run.batch_size=8"),
            r"optimizer\.lr was 0\.003 and would be 0\.5, run\.batch_size was 16 and would be 8; "
            r"to start from what it learned, train with --weights .*two and another --out",
        ),
    ],
    ids=["fewer", "other"],
)
def test_what_cannot_change_is_named_with_what_to_do_instead(two, two_epochs, settings, message):
    with pytest.raises(UserError, match=message):
        go_on(two, *settings)
    np.testing.assert_array_equal(weights(two), weights(two_epochs))


def test_other_pictures_and_other_networks_are_another_run(few, two, tmp_path):
    more = Path(shutil.copytree(few, tmp_path / "more"))
    shutil.copy(next((few / "0").iterdir()), more / "1" / "new.png")
    with pytest.raises(
        UserError, match=r"two: cannot go on as it began, the pictures are not those in its splits\.json"
    ):
        train_folder(more, out=two, options=TrainOptions(resume=True))
    with pytest.raises(UserError, match="begun with --model softmax_regression and cannot go on with lenet5"):
        train_folder(few, "lenet5", out=two, options=TrainOptions(resume=True))


def test_pictures_that_moved_are_named_anew(few, two, tmp_path):
    document = json.loads((two / "command.json").read_text())
    (two / "command.json").write_text(json.dumps(document | {"data": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="gone: no such folder"):
        go_on(two)
    assert train_folder(few, out=two, options=TrainOptions(resume=True))["metrics"]["n"] > 0


def test_held_out_pictures_that_repeat_those_that_teach_are_said(few, tmp_path, caplog):
    for name in ("train", "val", "test"):
        for folder in sorted(path for path in few.iterdir() if path.is_dir()):
            shutil.copytree(folder, tmp_path / "data" / name / folder.name)
    with caplog.at_level("INFO", "toolkit"):
        begin(tmp_path / "data", tmp_path / "run", epochs=1)
    assert "held-out pictures are copies or look-alikes of pictures that teach" in caplog.text


def test_a_run_that_early_stopping_ended_takes_no_more_epochs(few, tmp_path):
    begin(few, tmp_path / "run", "optimizer.lr=1e-30", "run.early_stopping=1", epochs=5)
    assert epochs_of(tmp_path / "run") == [1, 2]
    with pytest.raises(UserError, match=r"early stopping ended it after epoch 2.*--weights"):
        go_on(tmp_path / "run", "run.epochs=9")


def test_more_epochs_may_leave_an_early_one_the_best(few, tmp_path):
    begin(few, tmp_path / "run", "optimizer.lr=1e-30", "run.early_stopping=5")
    go_on(tmp_path / "run", "run.epochs=3")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "epoch-0001.npz",
        "epoch-0003.npz",
    ]


@pytest.mark.slow
def test_a_run_starts_from_what_another_learned(few, two_epochs, tmp_path):
    begin(few, tmp_path / "on", "optimizer.lr=1e-30", epochs=1, weights=two_epochs)
    np.testing.assert_allclose(weights(tmp_path / "on"), weights(two_epochs), atol=1e-6)
    for kept in [*(tmp_path / "on" / "checkpoints").iterdir(), tmp_path / "on" / "model.keras"]:
        kept.unlink()  # as if it was killed before its first checkpoint
    go_on(tmp_path / "on")
    np.testing.assert_allclose(weights(tmp_path / "on"), weights(two_epochs), atol=1e-6)
    with pytest.raises(UserError, match="--weights is for a run that begins"):
        train_folder(few, out=tmp_path / "on", options=TrainOptions(resume=True, weights=few))
    with pytest.raises(UserError, match=r"model\.initializer draws kernels anew"):
        begin(few, tmp_path / "third", "model.initializer=he_normal", weights=two_epochs)
    (tmp_path / "on" / "model.keras").unlink()
    with pytest.raises(UserError, match=r"on: the run is not finished; `toolkit train --resume .*on` goes on"):
        begin(few, tmp_path / "third", weights=tmp_path / "on")
    assert not (tmp_path / "third").exists()


def test_a_network_sees_pictures_at_the_size_that_was_asked_for(few, tmp_path):
    begin(few, tmp_path / "run", "data.size=40", epochs=1)
    assert load_network(tmp_path / "run" / "model.keras").input_shape[1:3] == (40, 40)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["preprocessing"]["size"] == [40, 40]
    go_on(tmp_path / "run", "run.epochs=2")
    with pytest.raises(UserError, match=r"data\.size"):  # it would be another network
        go_on(tmp_path / "run", "data.size=32")
    with pytest.raises(UserError, match=r"data\.size 8: lenet5 needs pictures of at least"):
        train_folder(few, "lenet5", out=tmp_path / "small", options=TrainOptions(overrides=("data.size=8",)))
    assert not (tmp_path / "small").exists()
    grey = create_model("resnet20", num_classes=4, input_shape=(32, 32, 1))
    save_weights(grey, tmp_path / "grey.safetensors")
    options = TrainOptions(weights=tmp_path / "grey.safetensors", overrides=("data.size=40", "run.epochs=1"))
    train_folder(few, "resnet20", out=tmp_path / "grey", options=options)
    assert load_network(tmp_path / "grey" / "model.keras").input_shape == (None, 40, 40, 1)
    options = TrainOptions(weights="lenet5-mnist", overrides=("data.size=40",))
    with pytest.raises(UserError, match=r"data\.size 40: these weights of lenet5 are for 32×32 pixels"):
        train_folder(few, "lenet5", out=tmp_path / "small", options=options)
    assert not (tmp_path / "small").exists()


def test_a_smoke_run_makes_room_for_the_real_one(few, four_epochs, tmp_path):
    begin(few, tmp_path / "run", epochs=4, smoke_run=True)
    assert epochs_of(tmp_path / "run") == [1, 2]
    assert json.loads((tmp_path / "run" / "command.json").read_text())["smoke"]
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"run: a smoke run with 'notes\.txt' beside it; move that"):
        begin(few, tmp_path / "run", epochs=4)
    (tmp_path / "run" / "notes.txt").unlink()
    begin(few, tmp_path / "run", epochs=4, resume=True)  # as a script that always says so
    np.testing.assert_array_equal(weights(tmp_path / "run"), weights(four_epochs))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(UserError, match="holds a run already; pass --resume"):
        begin(few, tmp_path / "run", epochs=4)


def test_there_must_be_a_run_to_go_on_with(tmp_path):
    with pytest.raises(UserError, match=r"gone: holds no run to go on with"):
        go_on(tmp_path / "gone")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_names_that_mean_something_to_a_library_survive(hostile_names, not_utf8, make_folder, tmp_path, monkeypatch):
    """Classes, files and all folders on the way, through training, report, resume and export."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    place = tmp_path / f"[v1] $x$ {{0}}%s {not_utf8}"
    data = make_folder(place / "data", dict.fromkeys(hostile_names, 3))
    for folder in data.iterdir():
        for number, own in enumerate([not_utf8, "[v1] $x$", "line\nbreak"]):
            (folder / f"00{number}.png").rename(folder / f"{own}.png")
    export = ExportOptions(place / "bundle", num_examples=1, force=True)
    options = TrainOptions(overrides=("run.epochs=1",))
    # Where an export is killed, a run goes on with what is left of it.
    monkeypatch.setattr(train, "export_held_out", lambda *arguments, **options: pytest.exit("killed"))
    with pytest.raises(pytest.exit.Exception):
        train_folder(data, "softmax_regression", out=place / "run", options=options, export=export)
    monkeypatch.undo()
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    result = go_on(place / "run")
    assert set(result["metrics"]["per_class"]) == {name.replace("\n", " ") for name in hostile_names}
    assert result["bundle"] == str(place / "bundle" / "1")
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("&lt;b&gt;&amp;amp;", "line break", "犬", "caf\\xe9"))
    rows = list(csv.reader((place / "run" / "classes.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 1 + len(hostile_names)
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("limit", [2_000, 20_000], ids=["checkpoint", "picture"])
def test_a_full_disk_costs_nothing_that_was_written(few, two_epochs, tmp_path, limit):
    """As on a full disk, no file gets larger than so many bytes."""
    out = tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError, match=r"run.*cannot be written \(File too large\)") as failed:
            begin(few, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"once that is mended, `toolkit train --resume {out}` goes on" in str(failed.value)
    assert not list(out.rglob(".partial-*"))
    go_on(out)
    np.testing.assert_array_equal(weights(out), weights(two_epochs))
    assert epochs_of(out) == [1, 2]


def test_held_out_pictures_are_decoded_once_for_all_that_follows_training(few, tmp_path, held_out_decoded):
    """For the report, calibration and the bundle; the gate of an export is where they are decoded."""
    export = ExportOptions(tmp_path / "bundle", formats=("savedmodel",))
    options = TrainOptions(overrides=(*FLAT, "run.epochs=1"))
    train_folder(few, "softmax_regression", out=tmp_path / "run", options=options, export=export)
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert sorted(held_out_decoded) == sorted(str(few / name) for name in splits["val"] + splits["test"])


def test_a_network_that_is_far_too_sure_is_exported(two, tmp_path):
    """As after the first steps at a high rate: logits differ by hundreds, and most probabilities are nought."""
    model = load_network(two / "model.keras")
    model.layers[-1].set_weights([1000 * values for values in model.layers[-1].get_weights()])
    model.save(two / "model.keras")
    go_on(two, export=ExportOptions(tmp_path / "sure", formats=("savedmodel",)))
    manifest = read_manifest(tmp_path / "sure" / "1")
    assert manifest.temperature > 10
    assert manifest.parity["savedmodel"] < 1e-5


def test_every_long_step_is_told(few, tmp_path, told):
    begin(few, tmp_path / "run", "run.gradient_norms=true", "run.checkpoint_every_steps=1")
    labels = ("building the network", "decoding pictures", "compiling the training step", "epoch 2/2", "validating")
    labels += ("measuring gradients", "writing a checkpoint", "predicting held-out pictures", "writing the report")
    totals = dict(told.begun)
    assert set(labels) <= set(totals)
    assert (totals["epoch 1/2"], totals["validating"], totals["decoding pictures"]) == (2, 1, 24)
    assert 0 not in totals.values()
    assert all(done <= (total or done) for _, done, total in told)
