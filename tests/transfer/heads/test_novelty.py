"""Novelty: distances to class means, and the threshold that they get."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from toolkit.errors import UserError
from toolkit.transfer.heads.feature_set import normalize_rows
from toolkit.transfer.heads.novelty import CONFIDENCE, REFUSED, Novelty, fit_novelty


def drawn(seed, count, width=16, classes=3):
    """Features around class centres, and labels."""
    centres = np.random.default_rng(0).uniform(0, 4, (classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (centres[labels] + rng.normal(0, 1, (count, width))).astype(np.float32), labels


def test_score_is_the_mahalanobis_distance_to_the_nearest_class_mean_of_unit_features():
    features, labels = drawn(1, 90)
    novelty = fit_novelty(features, labels, 3)
    unit = normalize_rows(features).astype(float)
    means = np.stack([unit[labels == label].mean(axis=0) for label in range(3)])
    away = unit - means[labels]
    covariance = away.T @ away / len(away)
    covariance = 0.7 * covariance + 0.3 * np.trace(covariance) / 100 * np.eye(16)  # 16 directions, and a sphere
    distances = [cdist(unit, [mean], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0] ** 2 for mean in means]
    distances = np.min(distances, axis=0)
    scores = novelty.scores(features)
    np.testing.assert_allclose(scores / scores[0], distances / distances[0], rtol=1e-3)
    np.testing.assert_allclose(novelty.scores(7 * features), scores, rtol=1e-3)  # length says nothing


def test_of_wide_features_only_the_directions_in_which_they_differ_most_count_less():
    features, labels = drawn(1, 200, width=300)
    features[:, :40] += np.random.default_rng(3).normal(0, 8, (200, 40))
    novelty = fit_novelty(features, labels, 3)
    assert novelty.along.shape == (300, 32)
    unit = normalize_rows(features).astype(float)
    means = np.stack([unit[labels == label].mean(axis=0) for label in range(3)])
    values, vectors = np.linalg.eigh(np.cov((unit - means[labels]).T, bias=True))
    floor = 0.3 * values.sum() / 100
    less = np.where(np.arange(300) < 268, 0, 1 - floor / (0.7 * values + floor))
    metric = np.eye(300) - vectors * less @ vectors.T
    distances = [np.einsum("ni,ij,nj->n", unit - mean, metric, unit - mean) for mean in means]
    scores = novelty.scores(features)
    found, expected = scores / scores.mean(), np.min(distances, axis=0)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=0.02)  # found from a random start


def test_pictures_that_are_all_alike_have_no_directions():
    features = np.repeat(np.eye(3, 8, dtype=np.float32), 10, axis=0)
    novelty = fit_novelty(features, np.repeat(np.arange(3), 10), 3)
    assert novelty.along.shape == (8, 0)
    assert (novelty.scores(features) <= 1).all()
    assert (novelty.scores(-features) > 1).all()


def test_threshold_refuses_at_most_the_stated_share_of_new_pictures_with_the_stated_confidence():
    fresh, _ = drawn(99, 3000)
    shares = []
    for seed in range(60):
        novelty = fit_novelty(*drawn(seed, 150), 3)
        shares.append(np.mean(novelty.scores(fresh) > 1))
        assert novelty.refused <= REFUSED
    assert np.mean(np.array(shares) <= REFUSED) >= CONFIDENCE - 0.08  # of 60 draws
    assert np.mean(shares) > 0.01  # and not by refusing nothing


def test_what_is_far_from_all_classes_is_beyond_one_and_zeros_are():
    features, labels = drawn(1, 150)
    novelty = fit_novelty(features, labels, 3)
    strange = np.concatenate([-features[:20], np.eye(16, dtype=np.float32), np.zeros((1, 16), np.float32)])
    assert (novelty.scores(strange) > 1).all()


def test_lots_are_held_out_together():
    features, labels = drawn(1, 9)
    copies, labels = np.tile(features, (5, 1)), np.tile(labels, 5)
    together = fit_novelty(copies, labels, 3, lots=np.tile(np.arange(9), 5))
    apart = fit_novelty(copies, labels, 3)
    probe = drawn(5, 30)[0]
    # A twin among those that teach makes a held-out picture look nearer than new ones are.
    assert together.scores(probe).mean() < apart.scores(probe).mean()
    assert apart.num_judged == together.num_judged == 45


def test_held_out_pictures_give_the_threshold_of_a_network_that_knows_the_others():
    features, labels = drawn(1, 90)
    further = drawn(2, 200)[0]
    novelty = fit_novelty(features, labels, 3, held_out=further)
    assert novelty.num_judged == 200
    assert np.mean(novelty.scores(further) > 1) == novelty.refused == 5 / 200
    assert fit_novelty(features, labels, 3, held_out=further[:0]) is None


def test_pictures_that_cannot_be_judged_give_no_threshold():
    features, _ = drawn(1, 3)
    assert fit_novelty(features, np.arange(3), 3) is None
    some = fit_novelty(drawn(1, 4)[0], np.array([0, 0, 1, 2]), 3)
    assert some.num_judged == 2


def test_file_brings_it_back_and_a_damaged_one_is_named(tmp_path):
    novelty = fit_novelty(*drawn(1, 30), 3)
    novelty.write(tmp_path / "novelty.npz")
    again = Novelty.read(tmp_path / "novelty.npz")
    np.testing.assert_array_equal(again.kernel, novelty.kernel)
    np.testing.assert_array_equal(again.bias, novelty.bias)
    assert (again.num_judged, again.refused) == (novelty.num_judged, novelty.refused)
    np.testing.assert_array_equal(again.along, novelty.along)
    np.savez(tmp_path / "older.npz", kernel=novelty.kernel, bias=novelty.bias, judged=[30, 0.05])
    assert Novelty.read(tmp_path / "older.npz").along.shape == (16, 0)
    for content in (b"", b"no archive", (tmp_path / "novelty.npz").read_bytes()[:200]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.npz: damaged"):
            Novelty.read(tmp_path / "bad.npz")
