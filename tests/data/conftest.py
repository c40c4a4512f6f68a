"""Scans remember what they find: here in a folder of the session's own."""

import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photographs() -> list[np.ndarray]:
    """Forty different views cut out of scikit-learn's two photographs, uint8 (160, 200, 3)."""
    from sklearn.datasets import load_sample_images

    views = []
    for image in load_sample_images().images:
        for top in range(0, 427 - 160, 66):
            for left in range(0, 640 - 200, 110):
                views.append(np.ascontiguousarray(image[top : top + 160, left : left + 200]))
    return views
