"""The features that a classifier reads: of one cut or several, and how they are scaled for a fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_FLOOR = 0.1  # see bounded_deviation
_ROUNDING = 1e-4  # of the largest deviation; what deviates less is constant


@dataclass(frozen=True)
class FeatureSet:
    """The features that a classifier reads.

    Attributes:
        cuts: names of cuts, in the order in which their features are joined.
        normalized: each cut's features of a picture are divided by their length (L2 norm) first.
    """

    cuts: tuple[str, ...]
    normalized: bool = False

    def join(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Compute from the cuts' features, by name and each (…, width), what the classifier reads: float32.

        >>> FeatureSet(("a", "b"), normalized=True).join({"a": np.array([[3, 4]]), "b": np.array([[2]])})
        array([[0.6, 0.8, 1. ]], dtype=float32)
        """
        rows = [features[name].astype(np.float32) for name in self.cuts]
        return np.concatenate([normalize_rows(row) for row in rows] if self.normalized else rows, axis=-1)


def normalize_rows(features: np.ndarray) -> np.ndarray:
    """Divide each row of float32 features by its L2 norm, as ``layers.UnitLength`` does in a network."""
    from toolkit.layers import UnitLength

    squares = np.square(features).sum(axis=-1, keepdims=True)
    return features / np.sqrt(np.maximum(squares, np.float32(UnitLength.smallest)))


def bounded_deviation(deviation: np.ndarray, widths: Sequence[int] = ()) -> np.ndarray:
    """Bound the deviations that features are divided by before a fit, so that the fitted kernel can be quantized.

    Dividing is folded into the kernel. A feature that is nearly constant on the pictures at hand would get a weight
    thousands of times as large as the others, and integers that reach up to it round those to nothing. So a
    deviation is at least a tenth of its cut's median.

    Args:
        deviation: of each feature, at least 0; of one that does not vary 0, or 1 as ``moments`` has it.
        widths: of the cuts that were joined; by default one.

    Returns:
        float32 divisors; 1 for all features of a cut that does not vary.

    >>> bounded_deviation(np.array([8.0, 4.0, 4.0, 0.001, 0.0]))
    array([8. , 4. , 4. , 0.4, 0.4], dtype=float32)
    """
    bounded = np.array(deviation, np.float32)
    for part in np.split(bounded, np.cumsum(widths)[:-1].astype(int)) if len(widths) else [bounded]:
        known = part[part != 1]
        varying = known[known > _ROUNDING * known.max(initial=0)]
        if varying.size:
            np.maximum(part, _FLOOR * np.median(varying), out=part)
        else:
            part[:] = 1
    return bounded
