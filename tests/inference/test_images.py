"""Whatever a caller has at hand is answered, or refused in one line that says what is taken."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit import Predictor
from toolkit.data import ImageError

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # callers close theirs


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle, "litert")


@pytest.fixture(scope="module")
def path(digits_split):
    return Path(digits_split.test.paths[5])


@pytest.fixture(scope="module")
def expected(predictor, path):
    return predictor.probabilities(path)[0]


def grey(path):
    return np.asarray(Image.open(path).convert("L"))


def rgb(path):
    return np.asarray(Image.open(path).convert("RGB"))


class Array:
    """Like a tensor of another library."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype)


ONE = {
    "Path": lambda path: path,
    "str": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "Pillow, not loaded": Image.open,
    "Pillow L": lambda path: Image.open(path).convert("L"),
    "Pillow P": lambda path: Image.open(path).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE),
    "Pillow RGBA": lambda path: Image.open(path).convert("RGBA"),
    "Pillow LA": lambda path: Image.open(path).convert("LA"),
    "Pillow CMYK": lambda path: Image.open(path).convert("RGB").convert("CMYK"),
    "(H, W)": grey,
    "(H, W, 1)": lambda path: grey(path)[..., None],
    "(H, W, 2)": lambda path: np.stack([grey(path), np.full_like(grey(path), 255)], axis=-1),
    "(H, W, 3)": rgb,
    "(H, W, 4)": lambda path: np.asarray(Image.open(path).convert("RGBA")),
    "not contiguous": lambda path: np.asfortranarray(rgb(path)),
    "__array__": lambda path: Array(rgb(path)),
}


@pytest.mark.parametrize("kind", ONE)
def test_one_picture_of_every_kind(kind, predictor, path, expected):
    make = ONE[kind]
    np.testing.assert_allclose(predictor.probabilities(make(path)), expected[None], atol=1e-5)
    two = predictor.probabilities([make(path), str(path)])
    np.testing.assert_allclose(two, np.stack([expected] * 2), atol=1e-5)
    np.testing.assert_array_equal(predictor.decode(make(path)), predictor.decode(path))
    assert len(predictor.predict(make(path))) == 1


SEVERAL = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "dict values": lambda paths: dict(enumerate(paths)).values(),
    "array of names": lambda paths: np.array([str(path) for path in paths]),
    "(N, H, W, 3)": lambda paths: np.stack([rgb(path) for path in paths]),
    "(N, H, W, 1)": lambda paths: np.stack([grey(path)[..., None] for path in paths]),
    "__array__": lambda paths: Array([rgb(path) for path in paths]),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_pictures_of_every_kind(kind, predictor, path, expected):
    found = predictor.probabilities(SEVERAL[kind]([path] * 3))
    np.testing.assert_allclose(found, np.stack([expected] * 3), atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "P", "PA", "I", "I;16", "F", "RGBa", "YCbCr", "HSV", "LAB", "RGBX"])
def test_pillow_images_of_every_mode_are_answered(mode, predictor):
    assert predictor.probabilities(Image.new(mode, (20, 30))).shape == (1, 10)


def test_tensors(predictor, path, expected):
    import tensorflow as tf

    encoded = tf.constant(path.read_bytes())
    for tensor in (tf.constant(rgb(path)), tf.constant(rgb(path)[None]), encoded, [encoded], encoded[None]):
        np.testing.assert_allclose(predictor.probabilities(tensor), expected[None], atol=1e-5)


def closed(path):
    file = path.open("rb")
    file.close()
    return file


def read(path):
    file = io.BytesIO(path.read_bytes())
    file.read()
    return file


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it is on a GPU")


REFUSED = {
    "floats of 0…1": (lambda path: rgb(path) / 255, r"uint8 array .* of values 0…1; \(array \* 255\)"),
    "floats of 0…255": (lambda path: rgb(path).astype(float), r"array.round\(\).astype\('uint8'\)"),
    "normalised floats": (lambda path: rgb(path) / 128 - 1, r"of values -1…0.99\d*; undo its normalisation"),
    "int64": (lambda path: rgb(path).astype(int), r"got int64 .*astype\('uint8'\)"),
    "mask": (lambda path: grey(path) > 9, r"\(array \* 255\)"),
    "channels first": (lambda path: rgb(path).transpose(2, 0, 1), r"moveaxis\(array, -3, -1\)"),
    "five dimensions": (lambda path: rgb(path)[None, None], r"shape \(1, 1, .*"),
    "one number": (lambda path: np.uint8(3), r"shape \(\)"),
    "no pixels": (lambda path: rgb(path)[:0], r"shape \(0, "),
    "Pillow without pixels": (lambda path: Image.new("RGB", (0, 4)), "without pixels, 0 × 4"),
    "None": (lambda path: None, "expected a path, .* got NoneType"),
    "number": (lambda path: 3, "got int"),
    "dict": (lambda path: {"image": path}, "got dict"),
    "list of lists": (lambda path: grey(path).tolist(), r"^images\[0\]: expected a path, .* got list"),
    "text file": (lambda path: io.StringIO("x"), "mode 'rb'"),
    "closed file": (closed, "mode 'rb'"),
    "file read before": (read, r"file.seek\(0\)"),
    "tensor out of reach": (lambda path: Unreadable(), r"Unreadable cannot be read as an array \(it is on a GPU\)"),
    "address": (lambda path: "https://a.org/x.jpg", "nothing is downloaded"),
    "folder": (lambda path: path.parent, "a folder; give the pictures in it"),
    "base64": (lambda path: "iVBORw0KGgo" * 999, r"^(iVBORw0KGgo){7}iVB…: cannot be read"),
    "null character": (lambda path: "x\0y", "null"),
    "no bytes": (lambda path: b"", "not a picture in a supported format"),
    "second of two": (lambda path: [path, b"no picture"], r"^images\[1\]: not a picture in a supported format"),
    "named": (lambda path: [path, "/gone.jpg"], r"^/gone.jpg: no such file$"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_in_one_line(kind, predictor, path):
    make, message = REFUSED[kind]
    with pytest.raises(ImageError, match=message) as error:
        predictor.predict(make(path))
    assert "\n" not in str(error.value)


def test_features_of_every_kind_are_those_of_the_bytes(predictor, path):
    expected = predictor.features(path.read_bytes())
    assert expected.shape[0] == 1
    for make in ONE.values():
        np.testing.assert_allclose(predictor.features(make(path)), expected, atol=1e-4)
    assert predictor.features([path] * 3, batch_size=2).shape == (3, expected.shape[1])
    assert predictor.features([]).shape == (0, expected.shape[1])
    with pytest.raises(ImageError, match=r"^images\[1\]: not a picture"):
        predictor.features([path, b"no picture"])
    with pytest.raises(ImageError, match="undo its normalisation"):
        predictor.features(rgb(path) / 128 - 1)


def test_answers_go_on_after_what_cannot_be_read(predictor, path, expected):
    given = (one for one in [b"no", path, "/gone.jpg", *[path] * 40, 3.5])
    answers = list(predictor.iter_answers(given))
    assert [str(a).split(": ")[0] for a in answers if isinstance(a, ImageError)] == [
        *("images[0]", "/gone.jpg", "images[43]")
    ]
    for answer in answers[3:-1]:
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


def test_generator_is_read_no_further_ahead_than_a_few_batches(predictor, path):
    taken = []
    answers = predictor.iter_answers(taken.append(1) or path for _ in range(1000))
    for count in range(1, 400):
        next(answers)
        assert len(taken) <= count + 5 * 16
    answers.close()
