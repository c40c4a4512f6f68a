"""The number whose reasons are looked for: a class's odds against all others, or against one of them.

A logit by itself says nothing: adding the same to all of them changes no answer, and what speaks for an insect speaks
for ants and bees alike. What makes the network say one class rather than others is the difference to theirs, each
weighed by how likely the network holds it: the gradient of the class's log odds.
"""

import numpy as np


def contrast(logits: np.ndarray, index: int, against: int | None = None) -> np.ndarray:
    """Weigh the logits of one picture so that their sum is a class's lead over the others.

    Args:
        logits: (classes,).
        index: of the class.
        against: of the one class that it is held against; by default all others, by their probabilities.

    Returns:
        float32 (classes,): 1 for the class, and for the others numbers that add up to -1.

    >>> contrast(np.array([1.0, 0.0, 0.0]), 0)
    array([ 1. , -0.5, -0.5], dtype=float32)
    """
    weights = np.zeros(len(logits), np.float32)
    if against is not None:
        weights[against] = -1
    elif len(logits) > 1:
        others = np.delete(logits.astype(np.float64), index)
        shares = np.exp(others - others.max())
        weights[np.arange(len(logits)) != index] = -shares / shares.sum()
    weights[index] = 1
    return weights


def log_odds(logits: np.ndarray, index: int, against: int | None = None) -> np.ndarray:
    """Compute a class's log odds against the others, or against one: float64 (…,) of logits (…, classes).

    >>> log_odds(np.log([[0.8, 0.1, 0.1]]), 0).round(4)
    array([1.3863])
    """
    logits = logits.astype(np.float64)
    own = logits[..., index]
    if against is not None:
        return own - logits[..., against]
    if logits.shape[-1] == 1:
        return own
    others = np.delete(logits, index, axis=-1)
    top = others.max(axis=-1)
    return own - top - np.log(np.exp(others - top[..., None]).sum(axis=-1))
