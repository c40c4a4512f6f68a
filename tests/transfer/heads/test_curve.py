"""Accuracy by number of pictures, on clouds that need some to be told apart, and on curves of a known law."""

import time

import numpy as np
import pytest

from toolkit.transfer.heads import curve
from toolkit.transfer.heads.curve import CurvePoint
from toolkit.transfer.heads.head import HeadOptions
from toolkit.transfer.heads.selection import SelectionOptions, select_head


def clouds(labels, *, seed=0, width=64, noise=3.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(0, 1, (100, width))
    return np.maximum(centres[labels] + rng.normal(1, noise, (len(labels), width)), 0).astype(np.float32)


def chosen_for(labels, lots=None, options=None, **how):
    options = SelectionOptions(options or HeadOptions(), lots=lots, curve=True)
    return select_head({"pool": clouds(labels, **how)}, labels, num_classes=int(labels.max()) + 1, options=options)


def test_points_are_the_accuracy_of_classifiers_that_learned_from_so_many():
    chosen = chosen_for(np.arange(400) % 4)
    points = chosen.curve.points
    assert [point.num_pictures for point in points] == pytest.approx([10, 20, 40, 80, 160, 320], abs=2)
    assert (points[-1].accuracy, points[-1].standard_error) == (chosen.accuracy, chosen.standard_error)
    unseen = np.arange(4000) % 4
    for point in points[2:4]:
        alone = []
        for seed in range(4):
            few = np.arange(point.num_pictures) % 4
            options = SelectionOptions(HeadOptions(strengths=(chosen.head.strength,)))
            own = select_head({"pool": clouds(few, seed=10 + seed)}, few, num_classes=4, options=options)
            answers = own.head.logits(own.features.join({"pool": clouds(unseen, seed=1)})).argmax(axis=1)
            alone.append(np.mean(answers == unseen))
        assert point.accuracy == pytest.approx(np.mean(alone), abs=0.06)


def test_curve_rises_where_pictures_help_and_the_advice_says_so():
    rising = chosen_for(np.arange(500) % 5).curve
    accuracies = [point.accuracy for point in rising.points]
    assert accuracies == sorted(accuracies)
    assert rising.last_gain == pytest.approx(accuracies[-1] - accuracies[-2])
    assert "Twice as many pictures like these would probably bring" in rising.advice or "still rises" in rising.advice


@pytest.mark.parametrize("noise", [0.1, 1000.0])
def test_nothing_is_promised_where_pictures_bring_nothing(noise):
    """Classes that a few pictures tell apart already, and classes that none will ever tell apart."""
    flat = chosen_for(np.arange(300) % 3, noise=noise).curve
    assert flat.forecast is None
    assert "less than 1 point more" in flat.advice if noise < 1 else "too uncertain" in flat.advice


@pytest.mark.parametrize(("limit", "exponent"), [(0.05, 0.5), (0.0, 0.3), (0.1, 1.0)])
def test_forecast_is_that_of_the_law_that_the_points_follow(limit, exponent):
    counts = np.array([50, 100, 200, 400, 800])
    errors = limit + 0.4 * (counts / 50.0) ** -exponent
    rng = np.random.default_rng(0)
    sureness = rng.uniform(0, 1, 20000)
    right = (sureness > errors[:, None]).astype(float)
    points = tuple(CurvePoint(int(n), 1 - error, 0.01) for n, error in zip(counts, errors, strict=True))
    found = curve._described(points, right, np.arange(20000))
    gain = errors[-1] - (limit + 0.4 * 32.0**-exponent)
    assert found.forecast.low <= gain <= found.forecast.high + 0.002
    assert found.forecast.likely == pytest.approx(gain, abs=0.004)


def test_points_that_follow_no_law_give_no_forecast():
    errors = np.array([0.5, 0.2, 0.2, 0.35, 0.1])
    right = (np.linspace(0, 1, 1000) > errors[:, None]).astype(float)
    points = tuple(CurvePoint(50 * 2**k, 1 - error, 0.01) for k, error in enumerate(errors))
    found = curve._described(points, right, np.arange(1000))
    assert found.forecast is None
    assert "still rises" in found.advice


def test_few_pictures_make_a_short_curve_and_no_promise():
    for labels in (np.arange(4) % 2, np.arange(12) % 3, np.arange(60) % 20):
        found = chosen_for(labels).curve
        assert len(found.points) == 1
        assert (found.last_gain, found.forecast) == (None, None)
        assert "too few pictures" in found.advice
    assert chosen_for(np.arange(3)).curve is None


def test_copies_stay_in_one_share():
    """Of copies in another share or fold a fit would learn nothing new, and the judge would be fooled."""
    originals = np.arange(60) % 2
    lots = np.repeat(np.arange(60), 5)
    features = {"pool": clouds(originals, noise=1000.0)[lots]}
    options = SelectionOptions(lots=lots, curve=True)
    found = select_head(features, originals[lots], num_classes=2, options=options).curve
    assert max(abs(point.accuracy - 0.5) for point in found.points) < 0.2
    assert found.points[-1].standard_error > 0.05


def test_views_teach_and_the_plain_picture_is_judged():
    labels = np.arange(200) % 2
    features = {"pool": np.stack([clouds(labels, seed=seed) for seed in (0, 0)])}
    found = select_head(features, labels, num_classes=2, options=SelectionOptions(curve=True)).curve
    assert [point.num_pictures for point in found.points] == pytest.approx([10, 20, 40, 80, 160], abs=2)


def test_other_solvers_have_no_curve():
    assert chosen_for(np.arange(60) % 2, options=HeadOptions("ridge")).curve is None


def test_curve_of_a_thousand_pictures_takes_less_than_two_seconds():
    labels = np.arange(1000) % 10
    own = SelectionOptions(HeadOptions(strengths=(30.0,)))
    features = {"pool": clouds(labels, width=1024)}
    seconds = []
    for with_curve in (False, True):
        start = time.process_time()
        select_head(features, labels, num_classes=10, options=SelectionOptions(own.head, curve=with_curve))
        seconds.append(time.process_time() - start)
    assert seconds[1] - seconds[0] < 2


def test_many_pictures_are_judged_in_part(monkeypatch):
    monkeypatch.setattr(curve, "_MOST_TAUGHT", 100)
    monkeypatch.setattr(curve, "_MOST_JUDGED", 200)
    labels = np.arange(1200) % 3
    found = chosen_for(labels).curve
    assert [point.num_pictures for point in found.points] == pytest.approx([15, 30, 60, 960], abs=2)
    assert found.points[0].accuracy < found.points[-1].accuracy


@pytest.mark.parametrize(("num_groups", "num_points"), [(16, 1), (15, 1), (120, 4)])
def test_few_groups_make_few_points(num_groups, num_points):
    """Groups of one class, and, where their number is odd, of both."""
    found = chosen_for(np.arange(600) % 2, lots=np.arange(600) % num_groups).curve
    assert len(found.points) == num_points
    counts = [point.num_pictures for point in found.points]
    assert counts == sorted(counts)
    assert counts[-1] == 480
