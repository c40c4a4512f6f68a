"""Parts that the networks' files share: pooled features are the mean or the maximum over all places."""

import keras
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.models import parts

FEATURES = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")


@pytest.mark.parametrize(("pooling", "reduce"), [("avg", np.mean), ("max", np.max)])
def test_pooled_features(pooling, reduce):
    answer = keras.ops.convert_to_numpy(parts.pooled(FEATURES, pooling))
    np.testing.assert_allclose(answer, reduce(FEATURES, axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_features_are_left_as_they_are_unless_asked():
    assert parts.pooled(FEATURES, None) is FEATURES
    with pytest.raises(UserError, match="pooling must be None, 'avg' or 'max', got 'sum'"):
        parts.pooled(FEATURES, "sum")
