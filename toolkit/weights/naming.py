"""The names that other projects give the tensors of the networks here, and what else their files take for granted.

A naming turns the name of a tensor in a file into an address: the layer's name here and the variable in it, by number
(``"0"``, the order of a Keras layer's weights) or by name (``"kernel"``). Names only: shapes are compared, and
arrays turned round, where a file meets a model (``toolkit.factory``).
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from toolkit.spec import IMAGENET, Preprocessing

Address = tuple[str, str]

CAFFE = Preprocessing((224, 224), crop_fraction=0.875, channel_order="bgr", scale=1.0, mean=(103.939, 116.779, 123.68))
CAFFE_ROUNDED = replace(CAFFE, mean=(104.0, 117.0, 123.0))
INCEPTION = replace(IMAGENET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
#: ImageNet's channel statistics on pictures of CIFAR's size, which akamaster's networks for CIFAR-10 were trained with.
IMAGENET_32 = replace(IMAGENET, size=(32, 32), resize="stretch", crop_fraction=1.0)

# Both conventions name the variables of a convolution, a dense layer or a normalisation in the same order.
_TORCH_VARIABLES = {"weight": "0", "bias": "1", "running_mean": "2", "running_var": "3"}


@dataclass(frozen=True)
class Naming:
    """One project's names for one network."""

    source: str  # the project
    layer: Callable[[str], str | None]  # its layer's name to the one here; None for a name it would not use
    channels_first: bool  # kernels are (out, in, height, width), and dense layers saw (channels, height, width)
    preprocessing: Preprocessing | None  # of its networks; None for files that do not tell
    # Builder arguments that the addresses found in a file call for.
    variant: Callable[[Collection[Address]], dict[str, Any]] = lambda found: {}

    def address(self, tensor: str) -> Address | None:
        """The address here of the tensor of that name; None if the name is not one of this project's."""
        if "/" in tensor:
            layer, _, variable = tensor.rpartition("/")
        else:
            layer, _, torch_name = tensor.rpartition(".")
            variable = _TORCH_VARIABLES.get(torch_name, "")
        ours = self.layer(layer) if variable else None
        return None if ours is None else (ours, variable)


def namings(network: str) -> list[Naming]:
    """Every naming that files for ``network`` may follow, that of this package's own files last.

    >>> [naming.source for naming in namings("resnet50")]
    ['torchvision', 'keras.applications', 'toolkit']
    """
    known = [naming for pattern, make in _FAMILIES if re.fullmatch(pattern, network) for naming in make(network)]
    return [*known, Naming("toolkit", lambda layer: layer, False, None, _own_variant)]


def _own_variant(found: Collection[Address]) -> dict[str, Any]:
    """The variant of a residual network as this package's own names tell it; other networks have no such variants."""
    residual = any(layer == "stem_bn" for layer, _ in found)
    return _residual_variant(found) if residual else {}


def variant_of_settings(layers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Builder arguments that only the settings in a saved model of this package tell: its arrays are alike without.

    >>> variant_of_settings({"stem_bn": {"epsilon": 1.001e-5}})
    {'epsilon': 1.001e-05}
    """
    variant: dict[str, Any] = {}
    first, middle, last = (layers.get(f"stage2_block1_conv{number}") for number in (1, 2, 3))
    if first and middle and last:
        variant["version"] = "v1" if first.get("strides") == (2, 2) else "v1.5"
    if "stem_bn" in layers:
        variant["epsilon"] = layers["stem_bn"].get("epsilon")
    if "stage1_norm" in layers and "stage1_pool" in layers:
        order = list(layers)
        caffe = "bvlc_alexnet" if order.index("stage1_norm") < order.index("stage1_pool") else "bvlc_reference_caffenet"
        variant["layout"] = "paper" if layers["stage1_norm"].get("bias") == 2.0 else caffe
    return variant


def scaling_of_settings(layers: dict[str, dict[str, Any]]) -> Preprocessing | None:
    """The preprocessing that layers at the input of a saved model do; None where there are none.

    >>> layers = {"picture": {}, "rescaling": {"scale": 0.5, "offset": -1.0}, "conv": {"kernel_size": (3, 3)}}
    >>> scaling_of_settings(layers).affine()
    ((0.5, 0.5, 0.5), (-1.0, -1.0, -1.0))
    """
    factor: tuple[float, ...] = (1.0,) * 3
    offset: tuple[float, ...] = (0.0,) * 3
    found = False
    for settings in layers.values():
        if {"kernel_size", "units"} & set(settings):
            break
        scaling = _scaling(settings)
        if scaling is not None:
            scales, shifts = scaling
            factor = tuple(f * s for f, s in zip(factor, scales, strict=True))
            offset = tuple(o * s + t for o, s, t in zip(offset, scales, shifts, strict=True))
            found = True
    if not found or min(factor) <= 0:
        return None
    shape: Any = next((settings["batch_shape"] for settings in layers.values() if "batch_shape" in settings), None)
    known = shape is not None and len(shape) == 4 and all(isinstance(side, int) for side in shape[1:3])
    size = (shape[1], shape[2]) if known else (224, 224)
    std = tuple(1 / f for f in factor)
    mean = tuple(-o / f for f, o in zip(factor, offset, strict=True))
    # Keras' own reader of folders stretches pictures, and layers that scale the input follow on it.
    return Preprocessing(size, resize="stretch", scale=1.0, mean=mean, std=std)


def _scaling(settings: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Factor and offset per channel of a ``Rescaling`` or ``Normalization`` by its settings; None for other layers."""
    if {"scale", "offset"} <= set(settings):
        scales, shifts = _per_channel(settings["scale"]), _per_channel(settings["offset"])
        return (scales, shifts) if scales and shifts else None
    if {"mean", "variance", "invert"} <= set(settings):
        means, variances = _per_channel(settings["mean"]), _per_channel(settings["variance"])
        if means and variances and min(variances) > 0:
            scales = tuple(variance**-0.5 for variance in variances)
            return scales, tuple(-mean * scale for mean, scale in zip(means, scales, strict=True))
    return None


def _per_channel(value: Any) -> tuple[float, ...] | None:
    values = value if isinstance(value, tuple) else (value,) * 3
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    return tuple(map(float, values)) if numbers and len(values) == 3 else None


def _residual_bias(found: Collection[Address]) -> dict[str, Any]:
    return {"use_bias": True} if {("stem_conv", "1"), ("stem_conv", "bias")} & set(found) else {}


def _residual_variant(found: Collection[Address]) -> dict[str, Any]:
    """Networks for ImageNet start at width 64 and always project; those for CIFAR, of three stages, may pad instead."""
    layers = {layer for layer, _ in found}
    projects = any("shortcut" in layer for layer in layers) and not any(layer.startswith("stage4") for layer in layers)
    return _residual_bias(found) | ({"shortcut": "B"} if projects else {})


# --- Residual networks


def _resnet(network: str) -> list[Naming]:
    bottlenecks = network in ("resnet50", "resnet101", "resnet152")
    keras_variant = {"version": "v1", "epsilon": 1.001e-5} if bottlenecks else {"epsilon": 1.001e-5}
    return [
        Naming("torchvision", _resnet_torch, True, IMAGENET, _residual_bias),
        Naming("keras.applications", _resnet_keras, False, CAFFE, lambda found: keras_variant | _residual_bias(found)),
    ]


def _resnet_cifar(network: str) -> list[Naming]:
    return [Naming("akamaster", _resnet_torch, True, IMAGENET_32, _residual_variant)]


def _resnet_torch(layer: str) -> str | None:
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)", layer):
        stage, block, kind, number = match.groups()
        return f"stage{stage}_block{int(block) + 1}_{kind}{number}"
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(?:downsample|shortcut)\.([01])", layer):
        stage, block, number = match.groups()
        return f"stage{stage}_block{int(block) + 1}_shortcut_{('conv', 'bn')[int(number)]}"
    return {"conv1": "stem_conv", "bn1": "stem_bn", "fc": "head_logits", "linear": "head_logits"}.get(layer)


def _resnet_keras(layer: str) -> str | None:
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", layer):
        stage, block, number, kind = match.groups()
        part = f"shortcut_{kind}" if number == "0" else f"{kind}{number}"
        return f"stage{int(stage) - 1}_block{block}_{part}"
    names = {"conv1_conv": "stem_conv", "conv1_bn": "stem_bn", "predictions": "head_logits", "probs": "head_logits"}
    return names.get(layer)


# --- VGG

_VGG_DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_VGG_HEADS = {
    "torchvision": {"classifier.0": "head_fc1", "classifier.3": "head_fc2", "classifier.6": "head_logits"},
    "timm": {"pre_logits.fc1": "head_fc1", "pre_logits.fc2": "head_fc2", "head.fc": "head_logits"},
    "keras.applications": {"fc1": "head_fc1", "fc2": "head_fc2", "predictions": "head_logits"},
    "caffe": {"fc6": "head_fc1", "fc7": "head_fc2", "fc8": "head_logits"},
}


def _vgg(network: str) -> list[Naming]:
    features = _vgg_features(_VGG_DEPTHS[network.removesuffix("_bn")], batch_norm=network.endswith("_bn"))
    known = [Naming(source, (features | _VGG_HEADS[source]).get, True, IMAGENET) for source in ("torchvision", "timm")]
    if network in ("vgg16", "vgg19"):
        in_keras = partial(_vgg_block, r"block(\d)_conv(\d)", _VGG_HEADS["keras.applications"])
        in_caffe = partial(_vgg_block, r"conv(\d)_(\d)", _VGG_HEADS["caffe"])
        known += [Naming("keras.applications", in_keras, False, CAFFE), Naming("caffe", in_caffe, True, CAFFE)]
    return known


def _vgg_features(depths: tuple[int, ...], *, batch_norm: bool) -> dict[str, str]:
    """torch numbers whatever stands in a row: convolution, normalisation, ReLU, pooling."""
    names, position = {}, 0
    for stage, depth in enumerate(depths, start=1):
        for number in range(1, depth + 1):
            names[f"features.{position}"] = f"stage{stage}_conv{number}"
            if batch_norm:
                names[f"features.{position + 1}"] = f"stage{stage}_bn{number}"
            position += 3 if batch_norm else 2
        position += 1
    return names


def _vgg_block(pattern: str, head: dict[str, str], layer: str) -> str | None:
    match = re.fullmatch(pattern, layer)
    return f"stage{match[1]}_conv{match[2]}" if match else head.get(layer)


# --- AlexNet, Network in Network


def _alexnet(network: str) -> list[Naming]:
    names = {f"conv{number}": f"stage{number}_conv" for number in range(1, 6)} | _VGG_HEADS["caffe"]
    preprocessing = replace(CAFFE_ROUNDED, size=(227, 227), crop_fraction=227 / 256)
    # Which of the two layouts a file has cannot be seen from it; CaffeNet's must be asked for.
    return [Naming("caffe", names.get, True, preprocessing, lambda found: {"layout": "bvlc_alexnet"})]


def _alexnet_owt(network: str) -> list[Naming]:
    features = {f"features.{place}": f"stage{stage}_conv" for stage, place in enumerate((0, 3, 6, 8, 10), start=1)}
    head = {"classifier.1": "head_fc1", "classifier.4": "head_fc2", "classifier.6": "head_logits"}
    return [Naming("torchvision", (features | head).get, True, IMAGENET)]


def _nin(network: str) -> list[Naming]:
    theirs = ["conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4", "conv3", "cccp5", "cccp6"]
    theirs += ["conv4-1024", "cccp7-1024", "cccp8-1024"]
    ours = [f"stage{stage}_conv{number}" for stage in range(1, 5) for number in range(1, 4)]
    if network == "nin_cifar":
        theirs, ours = theirs[:9], ours[:9]
    names = dict(zip(theirs, [*ours[:-1], "head_conv"], strict=True))
    return [Naming("caffe", names.get, True, CAFFE_ROUNDED if network == "nin" else None)]


# --- GoogLeNet


def _googlenet(network: str) -> list[Naming]:
    if network == "googlenet_bn":
        return [Naming("torchvision", _googlenet_torch, True, INCEPTION)]
    return [Naming("caffe", _googlenet_caffe, True, CAFFE_ROUNDED)]


# The convolutions of a module, here and in the other projects, in one order.
_PARTS = ("conv1", "reduce3", "conv3", "reduce5", "conv5", "proj")
_CAFFE_PARTS = dict(zip(("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj"), _PARTS, strict=True))
_TORCH_PARTS = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
_TORCH_BRANCHES = dict(zip(_TORCH_PARTS, _PARTS, strict=True))
_CAFFE_STEM = {"conv1/7x7_s2": "stage1_conv", "conv2/3x3_reduce": "stage2_reduce", "conv2/3x3": "stage2_conv"}
_CAFFE_HEADS = {"loss3/classifier": "head_logits"} | {
    f"loss{number}/{theirs}": f"aux{number}_{ours}"
    for number in (1, 2)
    for theirs, ours in {"conv": "conv", "fc": "fc", "classifier": "logits"}.items()
}


def _googlenet_caffe(layer: str) -> str | None:
    if match := re.fullmatch(r"inception_(\d)([a-e])/(\w+)", layer):
        stage, letter, part = match.groups()
        return f"stage{stage}_{letter}_{_CAFFE_PARTS[part]}" if part in _CAFFE_PARTS else None
    return (_CAFFE_STEM | _CAFFE_HEADS).get(layer)


_TORCH_CONVOLUTIONS = {"conv1": "stage1_conv", "conv2": "stage2_reduce", "conv3": "stage2_conv"} | {
    f"aux{number}.conv": f"aux{number}_conv" for number in (1, 2)
}
_TORCH_DENSE = {"fc": "head_logits"} | {
    f"aux{number}.fc{place}": f"aux{number}_{ours}" for number in (1, 2) for place, ours in ((1, "fc"), (2, "logits"))
}


def _googlenet_torch(layer: str) -> str | None:
    if layer in _TORCH_DENSE:
        return _TORCH_DENSE[layer]
    unit, _, kind = layer.rpartition(".")
    suffix = {"conv": "", "bn": "_bn"}.get(kind)
    ours = _TORCH_CONVOLUTIONS.get(unit)
    if match := re.fullmatch(r"inception(\d)([a-e])\.(branch\d(?:\.\d)?)", unit):
        stage, letter, branch = match.groups()
        ours = f"stage{stage}_{letter}_{_TORCH_BRANCHES[branch]}" if branch in _TORCH_BRANCHES else None
    return None if ours is None or suffix is None else ours + suffix


_FAMILIES: tuple[tuple[str, Callable[[str], list[Naming]]], ...] = (
    (r"resnet(18|34|50|101|152)", _resnet),
    (r"resnet(20|32|44|56|110)(_sd)?", _resnet_cifar),
    (r"vgg\d+(_bn)?", _vgg),
    (r"alexnet", _alexnet),
    (r"alexnet_owt", _alexnet_owt),
    (r"nin(_cifar)?", _nin),
    (r"googlenet(_bn)?", _googlenet),
)
