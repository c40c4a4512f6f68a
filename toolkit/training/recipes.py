"""How each kind of network is trained, by its paper where there is one.

A recipe is a function that returns a ``TrainConfig``; its docstring says where the numbers come from.
"""

import dataclasses
from collections.abc import Callable

from toolkit.registry import unknown_name
from toolkit.spec import UserError
from toolkit.training.config import DataConfig, OptimizerConfig, RunConfig, TrainConfig


def lenet() -> TrainConfig:
    """LeNet-5 on handwritten digits. LeCun et al. 1998 train on shifted and distorted digits with a falling
    rate; here shifts, AdamW and a cosine take the place of their second-order method."""
    return TrainConfig(
        data=DataConfig(augment="shift"),
        optimizer=OptimizerConfig(name="adamw", lr=2e-3, weight_decay=1e-3, warmup_epochs=1),
        run=RunConfig(epochs=40, batch_size=32),
    )


def resnet_cifar() -> TrainConfig:
    """He et al. 2015 section 4.2: SGD 0.1 with momentum 0.9, weight decay 1e-4, batch 128, rate divided by ten at
    half and three quarters, pad-and-crop and mirroring. 164 epochs are their 64,000 steps.

    Their decay is an L2 loss, which momentum multiplies by 1 / (1 - 0.9); Keras' decay bypasses momentum, so it is
    ten times theirs."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, weight_decay=1e-3, schedule="step"),
        run=RunConfig(epochs=164, batch_size=128),
    )


def resnet_imagenet() -> TrainConfig:
    """He et al. 2015 section 3.4: SGD 0.1 with momentum 0.9, weight decay 1e-4, batch 256, 90 epochs; steps at
    half and three quarters stand for their division on plateau, shifts and mirroring for their scale jitter. The
    decay is ten times theirs for the reason given in ``resnet_cifar``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, weight_decay=1e-3, schedule="step"),
        run=RunConfig(epochs=90, batch_size=256),
    )


def alexnet() -> TrainConfig:
    """Krizhevsky et al. 2012 section 5: SGD 0.01 with momentum 0.9, weight decay 5e-4, batch 128, about 90 epochs;
    steps at half and three quarters stand for their three divisions by hand, shifts for their random crops. The
    decay is ten times theirs for the reason given in ``resnet_cifar``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, weight_decay=5e-3, schedule="step"),
        run=RunConfig(epochs=90, batch_size=128),
    )


def zfnet() -> TrainConfig:
    """Zeiler and Fergus 2014 section 3.1: SGD 0.01 with momentum 0.9, batch 128, 70 epochs; they name no weight
    decay, so none. Steps and shifts stand for theirs as in ``alexnet``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, schedule="step"),
        run=RunConfig(epochs=70, batch_size=128),
    )


def vgg() -> TrainConfig:
    """Simonyan and Zisserman 2015 section 3.1: SGD 0.01 with momentum 0.9, weight decay 5e-4, batch 256, 74 epochs.
    Decay, steps and shifts stand for theirs as in ``alexnet``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, weight_decay=5e-3, schedule="step"),
        run=RunConfig(epochs=74, batch_size=256),
    )


def nin() -> TrainConfig:
    """Lin et al. 2014 section 4.1: batches of 128 and a rate that is divided by ten twice. They print no other
    figures; rate, momentum and decay are those of ``alexnet``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, weight_decay=5e-3, schedule="step"),
        run=RunConfig(epochs=90, batch_size=128),
    )


def modern() -> TrainConfig:
    """A steady default for any network and a small folder: AdamW, warm-up, cosine, label smoothing."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(lr=1e-3, weight_decay=1e-2, warmup_epochs=2, label_smoothing=0.1),
        run=RunConfig(epochs=60, batch_size=64),
    )


_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "alexnet": alexnet,
    "lenet": lenet,
    "modern": modern,
    "nin": nin,
    "resnet_cifar": resnet_cifar,
    "resnet_imagenet": resnet_imagenet,
    "vgg": vgg,
    "zfnet": zfnet,
}


def list_recipes() -> list[str]:
    """Names of all recipes."""
    return sorted(_RECIPES)


def recipe(name: str) -> TrainConfig:
    """The config that the recipe ``name`` stands for.

    Raises:
        UserError: no such recipe; the nearest is suggested.
    """
    if name not in _RECIPES:
        raise UserError(unknown_name("recipe", name, list(_RECIPES)))
    return _RECIPES[name]()


def smoke(config: TrainConfig) -> TrainConfig:
    """The same run cut down to two epochs, to see that everything works before the long one."""
    return dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=min(2, config.run.epochs)))
