"""Training recipes for each kind of network, by its paper where there is one.

A recipe is a function that returns a ``TrainConfig``; its docstring says where the numbers come from.
"""

import dataclasses
from collections.abc import Callable

from toolkit.errors import UserError, unknown_name
from toolkit.training.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig


def lenet() -> TrainConfig:
    """LeNet-5 on MNIST. LeCun et al. 1998 section III pass 20 times over the digits, shifted and distorted, with a
    falling rate; here shifts by up to two pixels, AdamW and a cosine take the place of their second-order method. A
    few hundred pictures want smaller batches and more epochs."""
    return TrainConfig(
        data=DataConfig(augment="shift:0.0625"),
        optimizer=OptimizerConfig(name="adamw", lr=3e-3, weight_decay=1e-3, warmup_epochs=1),
        run=RunConfig(epochs=25, batch_size=64),
    )


def alexnet() -> TrainConfig:
    """Krizhevsky et al. 2012 section 5: SGD 0.01 with momentum 0.9, weight decay 5e-4, batch 128, about 90 epochs,
    the rate divided by ten, three times, when the validation error stopped improving; section 4.1: random 224 out of
    256, mirrored, colours moved along their principal axes."""
    return TrainConfig(
        data=DataConfig(augment="random_crop:0.875, mirror, pca_colour:0.1"),
        optimizer=OptimizerConfig(
            name="sgd", lr=0.01, l2=5e-4, schedule="plateau", monitor="val_accuracy", min_share=1e-3
        ),
        run=RunConfig(epochs=90, batch_size=128, dtype_policy="auto"),
    )


def zfnet() -> TrainConfig:
    """Zeiler and Fergus 2014 section 3.1: SGD 0.01 with momentum 0.9, batch 128, 70 epochs, the rate lowered by hand
    when the validation error plateaus; they name no weight decay, so none. Their ten fixed crops of 224 out of 256,
    five of them mirrored, are random places here."""
    return TrainConfig(
        data=DataConfig(augment="random_crop:0.875, mirror"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, schedule="plateau", monitor="val_accuracy"),
        run=RunConfig(epochs=70, batch_size=128, dtype_policy="auto"),
    )


def vgg() -> TrainConfig:
    """Simonyan and Zisserman 2015 section 3.1: SGD 0.01 with momentum 0.9, weight decay 5e-4, batch 256, 74 epochs,
    the rate divided by ten, three times, when validation accuracy stopped improving. Crops of 224 out of pictures
    whose shorter side is 256 to 512, which are 0.19 to 0.77 of their area, mirrored, with ``alexnet``'s colours."""
    return TrainConfig(
        data=DataConfig(augment="resized_crop:0.19/0.77, mirror, pca_colour:0.1"),
        optimizer=OptimizerConfig(
            name="sgd", lr=0.01, l2=5e-4, schedule="plateau", monitor="val_accuracy", min_share=1e-3
        ),
        run=RunConfig(epochs=74, batch_size=256, dtype_policy="auto"),
    )


def nin() -> TrainConfig:
    """Lin et al. 2014 section 4: batches of 128, the rate divided by ten when training accuracy stops improving,
    and once more, down to a hundredth. They print no other figures; rate, momentum, decay, crops and mirroring are
    ``alexnet``'s."""
    return TrainConfig(
        data=DataConfig(augment="random_crop:0.875, mirror"),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, l2=5e-4, schedule="plateau", monitor="accuracy", min_share=1e-2),
        run=RunConfig(epochs=90, batch_size=128),
    )


def googlenet() -> TrainConfig:
    """Szegedy et al. 2015 sections 5 and 6: SGD with momentum 0.9, the rate lowered by 4 % every 8 epochs, the
    auxiliary heads' losses with weight 0.3, averaged weights at the end; windows of 8 to 100 % of the picture, 3:4 to
    4:3. Of their photometric distortions ``alexnet``'s colours are here. They print no rate, decay, batch or length;
    these are those of Caffe's ``bvlc_googlenet``: 0.01, 2e-4, 32, and 60 epochs of its 2,400,000 steps."""
    return TrainConfig(
        data=DataConfig(augment="resized_crop:0.08/1, mirror, pca_colour:0.1"),
        model=ModelConfig(variant={"aux_heads": True}, loss_weights={"aux1": 0.3, "aux2": 0.3}),
        optimizer=OptimizerConfig(
            name="sgd", lr=0.01, l2=2e-4, schedule="staircase", every=8, decay=0.96, ema_epochs=1
        ),
        run=RunConfig(epochs=60, batch_size=32, dtype_policy="auto"),
    )


def highway() -> TrainConfig:
    """Srivastava et al. 2015 section 3: SGD with momentum and a rate that falls exponentially. They chose its figures
    by random search and print none, so these are ours, for pictures as small as CIFAR's."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.05, l2=1e-4, schedule="exponential", decay=0.95),
        run=RunConfig(epochs=100, batch_size=128),
    )


def resnet_imagenet() -> TrainConfig:
    """He et al. 2016 section 3.4: SGD 0.1 with momentum 0.9, weight decay 1e-4, batch 256, the rate divided by ten
    when the error plateaus, 600,000 steps, which are 120 epochs; no dropout. Crops of 224 out of pictures whose
    shorter side is 256 to 480, which are 0.22 to 0.77 of their area, mirrored, with ``alexnet``'s colours."""
    return TrainConfig(
        data=DataConfig(augment="resized_crop:0.22/0.77, mirror, pca_colour:0.1"),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, l2=1e-4, schedule="plateau", monitor="val_accuracy"),
        run=RunConfig(epochs=120, batch_size=256, dtype_policy="auto"),
    )


def resnet_cifar() -> TrainConfig:
    """He et al. 2016 section 4.2: SGD 0.1 with momentum 0.9, weight decay 1e-4, batch 128, rate divided by ten at
    half and three quarters, pad-and-crop and mirroring. 164 epochs are their 64,000 steps. For 110 layers they begin
    with a lower rate: ``--set optimizer.warmup_epochs=1``."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, l2=1e-4, schedule="step"),
        run=RunConfig(epochs=164, batch_size=128),
    )


def stochastic_depth() -> TrainConfig:
    """Huang et al. 2016 section 4: as ``resnet_cifar``, with Nesterov's momentum, for 500 epochs."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(name="nesterov", lr=0.1, l2=1e-4, schedule="step"),
        run=RunConfig(epochs=500, batch_size=128),
    )


def modern() -> TrainConfig:
    """A steady default for any network and a small folder: AdamW, warm-up, cosine, label smoothing, averaged
    weights, clipped gradients."""
    return TrainConfig(
        data=DataConfig(augment="shift_flip"),
        optimizer=OptimizerConfig(
            lr=1e-3, weight_decay=1e-2, warmup_epochs=2, label_smoothing=0.1, ema_epochs=1, clip_norm=1.0
        ),
        run=RunConfig(epochs=60, batch_size=64),
    )


_RECIPES: dict[str, Callable[[], TrainConfig]] = {
    make.__name__: make
    for make in [
        *(alexnet, googlenet, highway, lenet, modern, nin),
        *(resnet_cifar, resnet_imagenet, stochastic_depth, vgg, zfnet),
    ]
}


def list_recipes() -> list[str]:
    """List the names of all recipes."""
    return sorted(_RECIPES)


def recipe(name: str) -> TrainConfig:
    """Return the config that the recipe ``name`` stands for.

    Raises:
        UserError: no such recipe; the nearest is suggested.
    """
    if name not in _RECIPES:
        raise UserError(unknown_name("recipe", name, list(_RECIPES)))
    return _RECIPES[name]()


def smoke(config: TrainConfig) -> TrainConfig:
    """Cut a run down to two epochs, to see that everything works before the long one."""
    return dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=min(2, config.run.epochs)))
