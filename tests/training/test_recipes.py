import pytest

import toolkit
from toolkit.data.augment import parse
from toolkit.training.config import config_as_json, config_from_json
from toolkit.training.recipes import list_recipes, recipe, smoke


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_survives_json(name):
    config = recipe(name)
    assert config_from_json(config_as_json(config)) == config


@pytest.mark.parametrize(
    ("name", "lr", "momentum", "l2", "batch_size", "schedule", "epochs"),
    [
        ("alexnet", 0.01, 0.9, 5e-4, 128, "plateau", 90),  # Krizhevsky et al. 2012, section 5
        ("zfnet", 0.01, 0.9, 0.0, 128, "plateau", 70),  # Zeiler and Fergus 2014, section 3.1
        ("vgg", 0.01, 0.9, 5e-4, 256, "plateau", 74),  # Simonyan and Zisserman 2015, section 3.1
        ("resnet_imagenet", 0.1, 0.9, 1e-4, 256, "plateau", 120),  # He et al. 2016, section 3.4
        ("resnet_cifar", 0.1, 0.9, 1e-4, 128, "step", 164),  # section 4.2
        ("stochastic_depth", 0.1, 0.9, 1e-4, 128, "step", 500),  # Huang et al. 2016, section 4
    ],
)
def test_recipes_hold_the_papers_figures(name, lr, momentum, l2, batch_size, schedule, epochs):
    config = recipe(name)
    optimizer, run = config.optimizer, config.run
    assert (optimizer.lr, optimizer.momentum, optimizer.l2, optimizer.schedule) == (lr, momentum, l2, schedule)
    assert (run.batch_size, run.epochs) == (batch_size, epochs)


def test_lengths_are_the_papers_steps():
    cifar, imagenet = recipe("resnet_cifar"), recipe("resnet_imagenet")
    assert cifar.run.epochs * (50_000 // cifar.run.batch_size) == pytest.approx(64_000, rel=0.01)
    assert imagenet.run.epochs * (1_281_167 // imagenet.run.batch_size) == pytest.approx(600_000, rel=0.01)


def test_googlenet_trains_with_its_auxiliary_heads():
    """Szegedy et al. 2015, sections 5 and 6: weight 0.3 each, 4 % less every 8 epochs, averaged weights."""
    config = recipe("googlenet")
    assert config.model.variant == {"aux_heads": True}
    assert config.model.loss_weights == {"aux1": 0.3, "aux2": 0.3}
    assert (config.optimizer.every, config.optimizer.decay) == (8, 0.96)
    assert config.optimizer.ema_epochs > 0


def test_every_network_names_a_recipe_and_its_augmentations_exist():
    for name in toolkit.list_models():
        assert parse(recipe(toolkit.model_info(name).recipe).data.augment)
    assert toolkit.model_info("resnet110_sd").recipe == "stochastic_depth"
    assert toolkit.model_info("highway_cnn19").recipe == "highway"


def test_crops_of_the_recipes_are_the_papers_share_of_the_picture():
    """A side of 224 in a shorter side of 256 to 512 for VGG (section 3.1), of 256 to 480 for ResNet (section 3.4)."""
    for name, longest in [("vgg", 512), ("resnet_imagenet", 480)]:
        crop = parse(recipe(name).data.augment)[0]
        assert (crop.min_area, crop.max_area) == pytest.approx(((224 / longest) ** 2, (224 / 256) ** 2), abs=0.005)
    assert parse(recipe("alexnet").data.augment)[0].share == 224 / 256


def test_smoke_is_two_epochs():
    assert smoke(recipe("resnet_cifar")).run.epochs == 2
