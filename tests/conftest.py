"""Fixtures of several test files: the real digits, a network trained on them, and its bundle. Made once a session."""

import functools
import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.progress import shown_on


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The 1,797 handwritten digits as an image folder; read only."""
    from toolkit.data.sources.samples import write_samples

    root = tmp_path_factory.mktemp("samples") / "digits"
    write_samples("digits", root)
    return root


@pytest.fixture(scope="session")
def digits_folder(digits):
    """The digits, scanned."""
    from toolkit.data import scan_folder

    return scan_folder(digits)


@pytest.fixture(scope="session")
def digits_split(digits_folder):
    """The digits, split 60/20/20."""
    from toolkit.data import split_folder

    return split_folder(digits_folder)


@pytest.fixture(scope="session")
def lenet_preprocessing():
    """The preprocessing of LeNet-5."""
    from toolkit import model_info

    return model_info("lenet5").preprocessing


@pytest.fixture(scope="session")
def lenet(digits_split, lenet_preprocessing):
    """LeNet-5 after six epochs on the digits: right about nine times in ten. Not to be changed."""
    import keras

    from toolkit import create_model
    from toolkit.data.feed.arrays import load_pixels
    from toolkit.data.pixels.decode import normalize

    keras.utils.set_random_seed(0)
    train = digits_split.train
    inputs = normalize(load_pixels(train.paths, lenet_preprocessing), lenet_preprocessing)
    model = create_model("lenet5", num_classes=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(inputs, np.asarray(train.labels), batch_size=32, epochs=6, verbose=0)
    return model


@pytest.fixture(scope="session")
def export_digits(tmp_path_factory, lenet, digits_folder, digits_split, lenet_preprocessing) -> Callable[..., Path]:
    """Write the trained network's bundle, ``…/digits/1``, with an int8 file, three examples, and options besides."""
    from toolkit.export import export_bundle

    return lambda **options: export_bundle(
        lenet,
        tmp_path_factory.mktemp("saved_models") / "digits",
        labels=digits_folder.class_names,
        preprocessing=lenet_preprocessing,
        calibration=digits_split.train,
        evaluation=digits_split.test,
        num_examples=3,
        **options,
    )


@pytest.fixture(scope="session")
def bundle(export_digits) -> Path:
    """The trained network's bundle; read only, copy it to damage it."""
    return export_digits()


@pytest.fixture(scope="session")
def jpegs(digits_split):
    """Real digits as colour JPEGs of several shapes, in bytes."""
    found = []
    for index, path in enumerate(digits_split.test.paths[::70]):
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").resize((30 + 9 * index, 60 - 5 * index)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture
def bundle_copy(bundle, tmp_path) -> Path:
    """The bundle once more, to be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "copy" / "1"))


@pytest.fixture(scope="session")
def residual():
    """ResNet-20 for three classes with batch statistics of its own, so that they matter. Not to be changed."""
    import keras

    from toolkit import create_model, model_info
    from toolkit.data.pixels.decode import normalize

    keras.utils.set_random_seed(1)
    model = create_model("resnet20", num_classes=3)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    # Logits of noise pictures vary around zero by about one, far from where softmax saturates.
    head, preprocessing = model.layers[-1], model_info("resnet20").preprocessing
    pixels = rng.integers(0, 256, (32, 32, 32, 3), np.uint8)
    logits = model(normalize(pixels, preprocessing), training=False).numpy()
    head.kernel.assign(head.kernel / logits.std(axis=0))
    head.bias.assign(-(logits / logits.std(axis=0)).mean(axis=0))
    return model


@pytest.fixture(scope="session")
def outline() -> Callable[..., Any]:
    """Build networks without values in their weights: ``outline("vgg16")`` takes a hundredth of the time.

    For tests that look at names, shapes, connections and counts. Asked for twice, the same network is the same object:
    not to be changed. It has nothing to compute with. A builder such as ``keras.applications.VGG16`` may stand for the
    name.
    """
    import keras

    from toolkit import create_model

    def without_values(network: str | Callable, dtype_policy: str, variant: dict[str, Any]) -> Any:
        keras.config.set_dtype_policy(dtype_policy)  # of this thread alone
        with keras.StatelessScope(initialize_variables=False):
            return create_model(network, **variant) if isinstance(network, str) else network(**variant)

    @functools.cache
    def build(network: str | Callable, *, dtype_policy: str = "float32", **variant: Any) -> Any:
        # In a thread of its own: Keras notes per thread which weights wait for their values, and the next network
        # that is built there would give them to all.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(without_values, network, dtype_policy, variant).result()

    return build


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """Names of files and folders that mean something to a library they are handed to, or are no text."""
    formulas, options, patterns = ("$1_to_$5", "$$$"), ("-x", "--help"), ("[v1]", "a*b?", "{0}%s", "~", "a\\b")
    markup, values = ("<b>&amp;", 'it\'s "q"', "a,b"), ("None", "10", "_background_")
    return *formulas, *options, *patterns, *markup, *values, "line\nbreak", "犬", "العربية", "x" * 200


@pytest.fixture(scope="session")
def not_utf8() -> str:
    """A name as Python reads it where an archive from Windows was unpacked: Latin-1."""
    return "caf\udce9"


@pytest.fixture(scope="session")
def make_folder() -> Callable[[Path, dict[str, int]], Path]:
    """Write an image folder: ``{"cats": 3, "train/dogs": 2}`` gives that many different PNG files in each."""

    def write(root: Path, counts: dict[str, int]) -> Path:
        rng = np.random.default_rng(len(counts))
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
                Image.fromarray(pixels).save(root / name / f"{index:03d}.png")
        return root

    return write


@pytest.fixture
def told():
    """Every (label, done, total) that steps tell while the test runs."""

    class Recorder(list):
        def __init__(self):
            super().__init__()
            self.begun = []  # (label, total) of every step

        def begin(self, label, total, in_bytes):
            self.begun.append((label, total))
            return len(self.begun) - 1

        def update(self, number, done, total):
            label, known = self.begun[number]
            self.append((label, done, total or known))

        def end(self, number): ...

    recorder = Recorder()
    with shown_on(recorder):
        yield recorder
