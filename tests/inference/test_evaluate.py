import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit import Predictor
from toolkit.bundle import picture_digests, read_manifest, write_manifest, write_pictures
from toolkit.data import scan_folder
from toolkit.errors import UserError
from toolkit.inference import evaluate_bundle


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle, "litert")


@pytest.fixture
def some_digits(digits, tmp_path):
    """Some real digits in folders of three classes; a third of the sevens are twos, so that not all can be right."""
    for label, source, count in (("7", "7", 20), ("7", "2", 10), ("1", "1", 15), ("3", "3", 40)):
        (tmp_path / label).mkdir(exist_ok=True)
        for path in sorted((digits / source).iterdir())[:count]:
            (tmp_path / label / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_figures_equal_a_count_by_hand(predictor, some_digits):
    paths = sorted(some_digits.glob("*/*.png"))
    truth = np.array([int(path.parent.name) for path in paths])
    ranks = np.argsort(-predictor.probabilities(paths), axis=1, kind="stable")
    report = evaluate_bundle(predictor, some_digits)
    assert report["n"] == 85
    assert report["top1"] == pytest.approx((ranks[:, 0] == truth).mean())
    assert report["top5"] == pytest.approx((ranks[:, :5] == truth[:, None]).any(axis=1).mean())
    assert report["per_class"] == {
        name: pytest.approx((ranks[truth == int(name), 0] == int(name)).mean()) for name in ("1", "3", "7")
    }
    assert (report["engine"], report["skipped"]) == ("litert", 0)
    assert report["top1"] < report["top5"]


def test_pictures_of_one_group_are_right_or_wrong_together(predictor, some_digits):
    """Of ten copies of each picture accuracy is as sure as of one; the interval took them for ten."""
    rows = [(path, path.parent.name, path.stem + path.parent.name) for path in sorted(some_digits.glob("*/*.png"))]
    lines = ["path,label,group", *(f"{path},{label},{group}" for path, label, group in rows)]
    (some_digits / "one.csv").write_text("\n".join(lines) + "\n")
    alone = evaluate_bundle(predictor, some_digits / "one.csv")
    for number in range(9):
        for path, label, group in rows:
            copy = path.with_name(f"{path.stem}-{number}.png")
            copy.write_bytes(path.read_bytes())
            lines.append(f"{copy},{label},{group}")
    (some_digits / "ten.csv").write_text("\n".join(lines) + "\n")
    together = evaluate_bundle(predictor, some_digits / "ten.csv")
    assert (together["n"], together["top1"]) == (850, alone["top1"])
    assert together["standard_error"] == pytest.approx(alone["standard_error"], rel=0.1)
    assert "standard_error" not in evaluate_bundle(predictor, some_digits)


def test_scanned_folder_serves_as_well_and_progress_ends_at_the_total(predictor, some_digits, told):
    folder = scan_folder(some_digits, class_names=predictor.labels)
    report = evaluate_bundle(predictor, folder)
    seen = [step for step in told if step[0] == "evaluating"]
    assert report == evaluate_bundle(predictor, some_digits)
    assert seen == [("evaluating", done, 85) for done in range(1, 86)]


def test_single_class_can_be_evaluated(predictor, digits, tmp_path):
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "x.png").write_bytes(next((digits / "4").iterdir()).read_bytes())
    assert evaluate_bundle(predictor, tmp_path)["n"] == 1


def test_class_the_bundle_does_not_know_is_named(predictor, some_digits):
    (some_digits / "seven").mkdir()
    with pytest.raises(UserError, match="'seven' is none of the classes 0, 1"):
        evaluate_bundle(predictor, some_digits)


def test_bad_pictures_stop_it_unless_they_are_skipped(predictor, some_digits, caplog):
    (some_digits / "7" / "bad.png").write_text("no")
    with pytest.raises(UserError, match=r"bad\.png.*--skip-bad"):
        evaluate_bundle(predictor, some_digits)
    report = evaluate_bundle(predictor, some_digits, skip_bad=True)
    assert (report["n"], report["skipped"]) == (85, 1)
    [told] = caplog.messages
    assert told.startswith("left out 7/bad.png: not a picture in a supported format")


@pytest.fixture(scope="module")
def knowing(bundle, digits_split, tmp_path_factory):
    """The bundle once more, as a journey writes it: with its pictures noted."""
    path = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("knowing") / "1"))
    subsets = {"train": digits_split.train, "val": digits_split.val, "test": digits_split.test}
    write_pictures(path, {name: picture_digests(own.paths) for name, own in subsets.items()})
    write_manifest(path, read_manifest(path))
    return Predictor.load(path, "litert")


def put(subset, root, *, step=1):
    """Copy every ``step``-th picture of a subset below ``root``, under a name of its own."""
    copied = 0
    for path in map(Path, subset.paths[::step]):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / path.parent.name / f"copy-{path.name}")
        copied += 1
    return copied


def test_folder_without_a_split_gives_the_held_out_accuracy_that_training_reported(knowing, digits, bundle):
    report = evaluate_bundle(knowing, digits)
    metrics = read_manifest(bundle).metrics
    assert (report["subset"], report["n"], report["top1"]) == ("test", 359, metrics["top1"])
    assert (report["taught"], report["chose"]) == (0, 0)
    assert report["pictures"] == (
        "359 of 1,797 pictures, those that the bundle did not learn from; of the others 1,079 taught it, "
        "359 chose its settings"
    )


@pytest.mark.parametrize(
    ("subset", "counts", "words"),
    [
        ("train", (1079, 1079, 0), "all of them taught the bundle: how it does on others is not known"),
        ("val", (359, 0, 359), "359 of 1,797 pictures, the val subset; all of them chose its settings"),
        ("test", (359, 0, 0), "359 of 1,797 pictures, the test subset"),
        ("all", (1797, 1079, 359), "all 1,797 pictures; of them 1,079 taught the bundle, 359 chose its settings"),
    ],
)
def test_subset_that_is_asked_for_is_found_again_by_its_pictures(knowing, digits, subset, counts, words):
    report = evaluate_bundle(knowing, digits, subset=subset)
    assert (report["subset"], report["n"], report["taught"], report["chose"]) == (subset, *counts)
    assert report["pictures"].endswith(words)


def test_split_folder_is_measured_on_its_test_pictures_else_on_val(knowing, digits_split, tmp_path):
    put(digits_split.train, tmp_path / "train", step=9)
    num_val = put(digits_split.val, tmp_path / "val", step=9)
    report = evaluate_bundle(knowing, tmp_path)
    assert (report["subset"], report["n"], report["chose"]) == ("val", num_val, num_val)
    num_test = put(digits_split.test, tmp_path / "test", step=9)
    leaked = put(digits_split.train, tmp_path / "test", step=100)
    report = evaluate_bundle(knowing, tmp_path)
    assert (report["subset"], report["n"], report["taught"]) == ("test", num_test + leaked, leaked)
    assert report["pictures"].endswith(f"the test subset; of them {leaked} taught the bundle")


def test_val_that_a_training_folder_did_not_have_is_found_by_its_pictures(knowing, digits_split, tmp_path):
    put(digits_split.train, tmp_path / "train", step=9)
    num_val = put(digits_split.val, tmp_path / "train", step=9)
    put(digits_split.test, tmp_path / "test", step=9)
    report = evaluate_bundle(knowing, tmp_path, subset="val")
    assert (report["n"], report["chose"]) == (num_val, num_val)


def test_pictures_that_all_taught_the_bundle_are_said_to_have(knowing, digits_split, tmp_path):
    num = put(digits_split.train, tmp_path, step=9)
    report = evaluate_bundle(knowing, tmp_path)
    assert (report["subset"], report["taught"]) == ("all", num)
    assert report["pictures"] == (
        f"all {num} pictures; all of them taught the bundle: how it does on others is not known"
    )


def test_pictures_that_chose_among_settings_serve_where_there_are_no_others(knowing, digits_split, tmp_path):
    put(digits_split.train, tmp_path, step=9)
    num_val = put(digits_split.val, tmp_path, step=9)
    report = evaluate_bundle(knowing, tmp_path)
    assert (report["subset"], report["n"], report["chose"]) == ("val", num_val, num_val)


def test_new_pictures_are_told_from_those_that_taught(knowing, digits_split, tmp_path):
    num_train = put(digits_split.train, tmp_path, step=9)
    num_test = put(digits_split.test, tmp_path, step=9)
    new = Image.fromarray(np.zeros((9, 9), np.uint8))
    new.save(tmp_path / "0" / "new.png")
    report = evaluate_bundle(knowing, tmp_path)
    assert (report["subset"], report["n"], report["taught"]) == ("unseen", num_test + 1, 0)
    assert f"of the others {num_train} taught it" in report["pictures"]
    for path in tmp_path.glob("*/copy-*"):
        path.unlink()
    new.save(tmp_path / "1" / "new.png")
    only = [path for path in tmp_path.iterdir() if not list(path.iterdir())]
    for empty in only:
        empty.rmdir()
    assert evaluate_bundle(knowing, tmp_path)["pictures"] == "all 2 pictures; the bundle learned from none of them"


def test_older_bundle_says_that_it_does_not_know_its_pictures(predictor, some_digits):
    report = evaluate_bundle(predictor, some_digits)
    assert (report["subset"], report["taught"], report["chose"]) == ("all", None, None)
    assert report["pictures"] == "all 85 pictures; it is not known which pictures taught the bundle"
    with pytest.raises(UserError, match="has no val pictures of its own, and the bundle brings no list"):
        evaluate_bundle(predictor, some_digits, subset="val")


def test_subset_that_is_not_there_is_named_with_those_that_are(knowing, digits_split, tmp_path):
    with pytest.raises(UserError, match="unknown subset 'tset'; did you mean 'test'"):
        evaluate_bundle(knowing, tmp_path, subset="tset")
    num_train = put(digits_split.train, tmp_path, step=9)
    with pytest.raises(UserError, match=f"has no val pictures; it has {num_train} train; take another --subset"):
        evaluate_bundle(knowing, tmp_path, subset="val")


def test_bundles_together_learned_from_what_taught_either(knowing, bundle, digits_split, tmp_path):
    num = put(digits_split.test, tmp_path, step=9)
    together = Predictor.load_several([knowing.version_dir, knowing.version_dir], "litert")
    assert evaluate_bundle(together, tmp_path)["taught"] == 0
    together = Predictor.load_several([knowing.version_dir, bundle], "litert")
    assert evaluate_bundle(together, tmp_path)["pictures"].startswith(f"all {num} pictures; it is not known")


def test_most_frequent_errors_are_counted(predictor, some_digits):
    confusions = evaluate_bundle(predictor, some_digits)["confusions"]
    assert confusions[0][:2] == ["7", "2"]  # a third of the sevens are twos
    assert 8 <= confusions[0][2] <= 10
    assert [count for *_, count in confusions] == sorted((count for *_, count in confusions), reverse=True)
