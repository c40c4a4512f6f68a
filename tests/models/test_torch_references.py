"""Networks against the same architectures written in PyTorch, with random weights carried over.

The references follow what torchvision and Caffe document, under torchvision's names: explicit padding, pooling with
``ceil_mode`` where the original has it, torch's own response normalisation.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

import toolkit

torch = pytest.importorskip("torch")
nn = torch.nn

CLASSES = 10
Size = tuple[int, int]
# Caffe's pooling, whose last window may hang over, and its normalisation, which divides alpha by the window as torch's.
POOL = nn.MaxPool2d(3, stride=2, ceil_mode=True)
NORM = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def named(**modules: Any) -> Any:
    return nn.Sequential(OrderedDict(modules))


def conv(channels: int, filters: int, kernel: int, **arguments: Any) -> list[Any]:
    return [nn.Conv2d(channels, filters, kernel, **arguments), nn.ReLU()]


def classic(maps: list[Any], average: Any, features: int) -> Any:
    """AlexNet's and VGG's three dense layers on pooled maps."""
    dense = [nn.Dropout(), nn.Linear(features, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    classifier = nn.Sequential(*dense, nn.Linear(4096, CLASSES))
    return named(features=nn.Sequential(*maps), avgpool=average, flatten=nn.Flatten(), classifier=classifier)


def alexnet_owt(size: Size) -> Any:
    maps = [*conv(3, 64, 11, stride=4, padding=2), nn.MaxPool2d(3, 2)]
    maps += [*conv(64, 192, 5, padding=2), nn.MaxPool2d(3, 2)]
    maps += [*conv(192, 384, 3, padding=1), *conv(384, 256, 3, padding=1), *conv(256, 256, 3, padding=1)]
    return classic([*maps, nn.MaxPool2d(3, 2)], nn.AdaptiveAvgPool2d(6), 256 * 6 * 6)


def vgg(size: Size, *, depths: tuple[int, ...], norm: bool = False) -> Any:
    maps, channels = [], 3
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            maps += [nn.Conv2d(channels, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
            channels = width
        maps.append(nn.MaxPool2d(2))
    return classic(maps, nn.AdaptiveAvgPool2d(7), 512 * 7 * 7)


def caffe_alexnet(size: Size, *, norm_first: bool) -> Any:
    """``bvlc_alexnet`` normalises and then pools, ``bvlc_reference_caffenet`` the other way round."""
    between = [NORM, POOL] if norm_first else [POOL, NORM]
    maps = [*conv(3, 96, 11, stride=4), *between, *conv(96, 256, 5, padding=2, groups=2), *between]
    maps += [*conv(256, 384, 3, padding=1), *conv(384, 384, 3, padding=1, groups=2)]
    maps += [*conv(384, 256, 3, padding=1, groups=2), POOL]
    return classic(maps, nn.Identity(), nn.Sequential(*maps)(torch.zeros(1, 3, *size)).numel())


def mlpconv(channels: int, filters: tuple[int, ...], kernel: int, **arguments: Any) -> list[Any]:
    """A convolution and the 1×1 convolutions behind it, which Caffe calls cccp."""
    cccp = [module for pair in pairwise(filters) for module in conv(*pair, 1)]
    return [*conv(channels, filters[0], kernel, **arguments), *cccp]


def nin(size: Size) -> Any:
    maps = [*mlpconv(3, (96, 96, 96), 11, stride=4), POOL]
    maps += [*mlpconv(96, (256, 256, 256), 5, padding=2), POOL]
    maps += [*mlpconv(256, (384, 384, 384), 3, padding=1), POOL, nn.Dropout()]
    maps += mlpconv(384, (1024, 1024, CLASSES), 3, padding=1)
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def nin_cifar(size: Size) -> Any:
    """Its average pooling counts no pixel outside the map, in Caffe as here."""
    maps = [*mlpconv(3, (192, 160, 96), 5, padding=2), POOL, nn.Dropout()]
    maps += [*mlpconv(96, (192, 192, 192), 5, padding=2), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout()]
    maps += mlpconv(192, (192, 192, CLASSES), 3, padding=1)
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Block(nn.Module):
    """A residual block of torchvision, a bottleneck striding on its 3×3, or of the CIFAR checkpoints, with option A."""

    def __init__(self, channels: int, width: int, stride: int, *, bottleneck: bool, cifar: bool) -> None:
        super().__init__()
        basic = [(3, width, stride), (3, width, 1)]
        shapes = [(1, width, 1), (3, width, stride), (1, 4 * width, 1)] if bottleneck else basic
        self.depth, inputs = len(shapes), channels
        for number, (kernel, filters, step) in enumerate(shapes, start=1):
            layer = nn.Conv2d(inputs, filters, kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(filters))
            inputs = filters
        changes = stride > 1 or channels != inputs
        self.pad = (inputs - channels) // 2 if changes and cifar else 0
        self.downsample = nn.Identity()
        if changes and not cifar:
            projection = nn.Conv2d(channels, inputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(inputs))

    def forward(self, x: Any) -> Any:
        y = x
        for number in range(1, self.depth + 1):
            # Blocks follow a ReLU, so one more changes nothing.
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(torch.relu(y)))
        if self.pad:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(y + self.downsample(x))


def resnet(size: Size, *, depths: tuple[int, ...], bottleneck: bool = False, cifar: bool = False) -> Any:
    """torchvision's, or the ResNet-20 of the public CIFAR checkpoints."""
    channels = width = 16 if cifar else 64
    stages = {}
    for number, depth in enumerate(depths, start=1):
        outputs, block = 4 * width if bottleneck else width, partial(Block, bottleneck=bottleneck, cifar=cifar)
        first = block(channels, width, 1 if number == 1 else 2)
        stages[f"layer{number}"] = nn.Sequential(first, *(block(outputs, width, 1) for _ in range(depth - 1)))
        channels, width = outputs, 2 * width
    first = nn.Conv2d(3, 16, 3, padding=1, bias=False) if cifar else nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
    maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
    stem = {"conv1": first, "bn1": nn.BatchNorm2d(first.out_channels), "relu": nn.ReLU(), "maxpool": maxpool}
    head = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return named(**stem, **stages, **head, **{"linear" if cifar else "fc": nn.Linear(channels, CLASSES)})


class GoogLeNet(nn.Module):
    """torchvision's, or Caffe's; at 224×224 with its auxiliary heads, whose dense layers fit no other size in Caffe."""

    # Table 1: input channels, 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool proj.
    table_1 = """3a 192 64 96 128 16 32 32, 3b 256 128 128 192 32 96 64, 4a 480 192 96 208 16 48 64,
        4b 512 160 112 224 24 64 64, 4c 512 128 128 256 24 64 64, 4d 512 112 144 288 32 64 64,
        4e 528 256 160 320 32 128 128, 5a 832 256 160 320 32 128 128, 5b 832 384 192 384 48 128 128"""

    def __init__(self, size: Size, *, caffe: bool) -> None:
        super().__init__()
        self.caffe = caffe
        self.conv1, self.conv2, self.conv3 = self.unit(3, 64, 7, 2), self.unit(64, 64, 1), self.unit(64, 192, 3)
        for name, *widths in (row.split() for row in self.table_1.split(",")):
            inputs, one, reduce3, three, reduce5, five, proj = map(int, widths)
            branch2 = nn.Sequential(self.unit(inputs, reduce3, 1), self.unit(reduce3, three, 3))
            branch3 = nn.Sequential(self.unit(inputs, reduce5, 1), self.unit(reduce5, five, 5 if caffe else 3))
            branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), self.unit(inputs, proj, 1))
            module = named(branch1=self.unit(inputs, one, 1), branch2=branch2, branch3=branch3, branch4=branch4)
            self.add_module(f"inception{name}", module)
        for name, channels in (("aux1", 512), ("aux2", 528)) if size == (224, 224) else ():
            average = nn.AvgPool2d(5, stride=3, ceil_mode=True) if caffe else nn.AdaptiveAvgPool2d(4)
            dense = {"fc1": nn.Linear(2048, 1024), "relu": nn.ReLU(), "fc2": nn.Linear(1024, CLASSES)}
            self.add_module(name, named(pool=average, conv=self.unit(channels, 128, 1), flat=nn.Flatten(), **dense))
        self.fc = nn.Linear(1024, CLASSES)

    def unit(self, channels: int, filters: int, kernel: int, stride: int = 1) -> Any:
        layer = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=self.caffe)
        return named(conv=layer, **({} if self.caffe else {"bn": nn.BatchNorm2d(filters, eps=1e-3)}), relu=nn.ReLU())

    def forward(self, x: Any) -> Any:
        norm = NORM if self.caffe else nn.Identity()
        x = POOL(norm(self.conv3(self.conv2(norm(POOL(self.conv1(x)))))))
        pools = {"3b": POOL, "4e": POOL if self.caffe else nn.MaxPool2d(2, 2, ceil_mode=True)}
        heads, outputs = {"4a": "aux1", "4d": "aux2"}, {}
        for row in self.table_1.split(","):
            name = row.split()[0]
            module = self.get_submodule(f"inception{name}")
            x = torch.cat([branch(x) for branch in module.children()], dim=1)
            if name in heads and hasattr(self, heads[name]):
                outputs[heads[name]] = self.get_submodule(heads[name])(x)
            x = pools.get(name, nn.Identity())(x)
        return {"logits": self.fc(x.mean((2, 3))), **outputs} if outputs else self.fc(x.mean((2, 3)))


#: From torchvision's names of modules to those of layers here, one substitution after the other.
RESNET_NAMES = [
    (r"^layer(\d)\.(\d+)\.", lambda match: f"stage{match[1]}_block{int(match[2]) + 1}_"),
    *[("downsample.0", "shortcut_conv"), ("downsample.1", "shortcut_bn")],
    *[("^conv1", "stem_conv"), ("^bn1", "stem_bn"), ("^(fc|linear)$", "head_logits")],
]
GOOGLENET_NAMES = [
    *[(r"\.conv$", ""), (r"\.bn$", "_bn"), (r"^inception(\d)(\w)\.", r"stage\1_\2_"), (r"^(aux\d)\.", r"\1_")],
    *[("branch1", "conv1"), ("branch2.0", "reduce3"), ("branch2.1", "conv3")],
    *[("branch3.0", "reduce5"), ("branch3.1", "conv5"), ("branch4.1", "proj")],
    *[("^conv1", "stage1_conv"), ("^conv2", "stage2_reduce"), ("^conv3", "stage2_conv")],
    *[("fc1$", "fc"), ("fc2$", "logits"), ("^fc$", "head_logits")],
]
#: Reference, names (none where layers follow one another), and a size besides the native one.
CASES: dict[str, tuple[Callable[[Size], Any], list[Any], Size]] = {
    "alexnet_owt": (alexnet_owt, [], (127, 158)),
    "vgg11": (partial(vgg, depths=(1, 1, 2, 2, 2)), [], (255, 240)),
    "vgg11_bn": (partial(vgg, depths=(1, 1, 2, 2, 2), norm=True), [], (255, 240)),
    "vgg16": (partial(vgg, depths=(2, 2, 3, 3, 3)), [], (240, 255)),
    "vgg16_bn": (partial(vgg, depths=(2, 2, 3, 3, 3), norm=True), [], (240, 255)),
    "resnet18": (partial(resnet, depths=(2, 2, 2, 2)), RESNET_NAMES, (97, 130)),
    "resnet34": (partial(resnet, depths=(3, 4, 6, 3)), RESNET_NAMES, (97, 130)),
    "resnet50": (partial(resnet, depths=(3, 4, 6, 3), bottleneck=True), RESNET_NAMES, (97, 130)),
    "resnet20": (partial(resnet, depths=(3, 3, 3), cifar=True), RESNET_NAMES, (45, 38)),
    "googlenet_bn": (partial(GoogLeNet, caffe=False), GOOGLENET_NAMES, (97, 130)),
    "googlenet": (partial(GoogLeNet, caffe=True), GOOGLENET_NAMES, (97, 130)),
    "alexnet bvlc_alexnet": (partial(caffe_alexnet, norm_first=True), [], (150, 161)),
    "alexnet bvlc_reference_caffenet": (partial(caffe_alexnet, norm_first=False), [], (150, 161)),
    "nin": (nin, [], (150, 161)),
    "nin_cifar": (nin_cifar, [], (36, 28)),
}
#: Whose 100 million weights take seconds to draw and carry.
SLOW = {name for name in CASES if name.startswith(("vgg", "alexnet"))} - {"alexnet bvlc_alexnet"}


def randomise(network: Any) -> None:
    """Weights that keep the signal's strength, with biases and statistics away from their defaults."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.7, 1.3)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.7, 1.3)
        if getattr(module, "bias", None) is not None:
            module.bias.normal_(0, 0.2)


def carry_over(theirs: Any, ours: keras.Model, names: list[Any]) -> None:
    """Give every layer of ours the weights of one module of theirs."""
    layers = {layer.name: layer for layer in ours.layers if layer.weights}
    modules = {name: module for name, module in theirs.named_modules() if hasattr(module, "weight")}
    renamed = [reduce(lambda name, pair: re.sub(*pair, name), names, name) for name in modules] if names else layers
    assert set(renamed) == set(layers)
    for name, module in zip(renamed, modules.values(), strict=True):
        # Weight, bias, running mean and variance, as in Keras; behind them torch counts batches.
        layers[name].set_weights([as_keras(t, layers[name], ours) for t in list(module.state_dict().values())[:4]])


def as_keras(tensor: Any, layer: Any, model: keras.Model) -> np.ndarray:
    """A kernel with its channels last; torch also flattens maps channels first."""
    if tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0)
    if tensor.ndim == 2:
        sides = [x.input.shape[1:3] for x in model.layers if x.name.endswith("flatten") and x.output is layer.input]
        tensor = tensor.reshape(len(tensor), -1, *(sides or [(1, 1)])[0])
        tensor = tensor.permute(2, 3, 1, 0).flatten(0, 2)
    return tensor.numpy()


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["other", "native"])
@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
@torch.no_grad()
def test_answers_as_its_reference(case: str, native: bool) -> None:
    build, names, size = CASES[case]
    name, *layout = case.split()
    variant = {"layout": layout[0]} if layout else {}
    if native:
        size = toolkit.model_info(name).input_shape[:2]
        variant |= {"aux_heads": True} if "googlenet" in name else {}
    torch.manual_seed(0)
    theirs = build(size).eval()
    randomise(theirs)
    ours = toolkit.create_model(name, input_shape=(*size, 3), num_classes=CLASSES, **variant)
    carry_over(theirs, ours, names)

    # Pictures that differ at large and in detail, and where constants depend on it, of the strength of Caffe's.
    x = nn.functional.interpolate(torch.randn(3, 3, 4, 4), size, mode="bilinear") + torch.randn(3, 3, *size)
    x *= 60 if layout or name in ("googlenet", "nin") else 1
    expected, answer = theirs(x), ours(x.permute(0, 2, 3, 1).numpy())
    pairs = [(expected[key], answer[key]) for key in expected] if isinstance(expected, dict) else [(expected, answer)]
    for their, our in pairs:
        spread = their.numpy().std()
        assert their.numpy().std(axis=0).mean() > 0.01 * spread  # pictures matter, not only biases
        np.testing.assert_allclose(keras.ops.convert_to_numpy(our) / spread, their / spread, rtol=0, atol=1e-4)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "googlenet_bn"])
@torch.no_grad()
def test_its_checkpoint_file_answers_alike(name: str, legacy: bool, tmp_path: Any) -> None:
    size = toolkit.model_info(name).input_shape[:2]
    torch.manual_seed(0)
    theirs = CASES[name][0](size).eval()
    randomise(theirs)
    weights = theirs.state_dict()
    if legacy:  # as training scripts leave it
        weights = {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "best_prec1": 91.5}
    torch.save(weights, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=not legacy)
    ours = toolkit.create_model(name, weights=tmp_path / "checkpoint.pth")
    x = torch.randn(2, 3, *size)
    their = theirs(x)
    their = their["logits"] if isinstance(their, dict) else their
    answer = keras.ops.convert_to_numpy(ours(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(answer / their.numpy().std(), their / their.numpy().std(), rtol=0, atol=1e-4)
