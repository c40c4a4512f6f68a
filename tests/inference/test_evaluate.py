import numpy as np
import pytest

from toolkit import Predictor
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


def test_scanned_folder_serves_as_well_and_progress_ends_at_the_total(predictor, some_digits, told):
    folder = scan_folder(some_digits, class_names=predictor.labels)
    report = evaluate_bundle(predictor, folder)
    seen = [step for step in told if step[0] == "evaluating"]
    assert report == evaluate_bundle(predictor, some_digits)
    assert seen == [("evaluating", done, 85) for done in (32, 64, 85)]


def test_single_class_can_be_evaluated(predictor, digits, tmp_path):
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "x.png").write_bytes(next((digits / "4").iterdir()).read_bytes())
    assert evaluate_bundle(predictor, tmp_path)["n"] == 1


def test_class_the_bundle_does_not_know_is_named(predictor, some_digits):
    (some_digits / "seven").mkdir()
    with pytest.raises(UserError, match="'seven' is none of the classes 0, 1"):
        evaluate_bundle(predictor, some_digits)


def test_bad_pictures_stop_it_unless_they_are_skipped(predictor, some_digits):
    (some_digits / "7" / "bad.png").write_text("no")
    with pytest.raises(UserError, match=r"bad\.png.*--skip-bad"):
        evaluate_bundle(predictor, some_digits)
    report = evaluate_bundle(predictor, some_digits, skip_bad=True)
    assert (report["n"], report["skipped"]) == (85, 1)
