"""Leads and odds of a class over others."""

import numpy as np

from toolkit.explain.scores import log_odds


def test_log_odds_are_those_of_the_probabilities():
    logits = np.random.default_rng(0).normal(size=(4, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log(probabilities[:, 2] / (1 - probabilities[:, 2]))
    np.testing.assert_allclose(log_odds(logits, 2), expected)
    np.testing.assert_allclose(log_odds(logits, 2, 3), logits[:, 2] - logits[:, 3])
