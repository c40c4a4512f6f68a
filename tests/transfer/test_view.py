"""The crop and the size at which a network sees pictures."""

import keras
import numpy as np
import pytest
from PIL import Image

from toolkit import create_model, model_info
from toolkit.data import scan_folder
from toolkit.errors import UserError
from toolkit.transfer.view import fitting_size, takes_any_size
from toolkit.workflows.finetune import fitting_network


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((224, 224), 32, (128, 128)),
        ((224, 224), 28, (128, 128)),  # no less than half, in whole steps of 32
        ((224, 224), 3, (128, 128)),
        ((224, 224), 48, (192, 192)),
        ((224, 224), 64, (224, 224)),
        ((224, 224), 500, (224, 224)),
        ((299, 299), 32, (160, 160)),
        ((32, 32), 8, (32, 32)),
        ((224, 448), 60, (128, 256)),
    ],
)
def test_tiny_pictures_are_enlarged_four_times_at_most(size, side, expected):
    assert fitting_size(size, np.full(5, side)) == expected


def test_half_of_the_pictures_decide():
    assert fitting_size((224, 224), [32, 32, 32, 500, 600]) == (128, 128)
    assert fitting_size((224, 224), [32, 32, 300, 500, 600]) == (224, 224)
    assert fitting_size((224, 224), []) == (224, 224)


def test_what_flattens_maps_takes_one_size():
    assert takes_any_size(create_model("googlenet", include_top=False))
    assert not takes_any_size(create_model("lenet5"))


def test_a_network_for_tiny_pictures_sees_them_whole_at_their_size(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(rng.normal(colour, 30, (32, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    keras.utils.set_random_seed(0)
    trained = create_model("resnet18", num_classes=4)
    trained.save(tmp_path / "own.keras")
    caplog.set_level("INFO", logger="toolkit")
    folder, info = scan_folder(tmp_path / "data"), model_info("resnet18")
    network, preprocessing = fitting_network(info, folder, tmp_path / "own.keras")
    assert "32 pixels or less on the shorter side: resnet18 sees them at 128×128" in caplog.text
    assert (preprocessing.size, preprocessing.crop_fraction) == ((128, 128), 1.0)
    assert info.preprocessing.crop_fraction < 1
    assert network.input_shape == (None, 128, 128, 3)
    for own, given in zip(network.get_weights()[:-2], trained.get_weights()[:-2], strict=True):  # but the classifier's
        np.testing.assert_array_equal(own, given)
    caplog.clear()
    network, preprocessing = fitting_network(info, folder, tmp_path / "own.keras", 96)  # as asked
    assert (preprocessing.size, preprocessing.crop_fraction) == ((96, 96), 1.0)
    assert network.input_shape == (None, 96, 96, 3)
    assert "shorter side" not in caplog.text
    with pytest.raises(
        UserError, match=r"--size 48: these weights of lenet5 are for 32×32 pixels; networks that average"
    ):
        fitting_network(model_info("lenet5"), folder, "lenet5-mnist", 48)
    assert fitting_network(model_info("lenet5"), folder, "lenet5-mnist", 32)[1].size == (32, 32)
    with pytest.raises(UserError, match="--size is a number of pixels, got '64'"):
        fitting_network(info, folder, tmp_path / "own.keras", "64")
