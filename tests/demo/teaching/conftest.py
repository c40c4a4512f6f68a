"""Pictures that look like no other."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Make smooth pictures, a different one for each seed."""

    def make(seed: int, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
        return buffer.getvalue()

    return make
