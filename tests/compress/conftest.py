import pytest


@pytest.fixture(scope="session")
def lenet_files(lenet, lenet_preprocessing, digits_split) -> dict[str, bytes]:
    """The trained network quantized by every method."""
    from toolkit.compress import METHODS, quantize

    return {
        method: quantize(lenet, method, preprocessing=lenet_preprocessing, calibration=digits_split.train)
        for method in METHODS
    }
