"""Names of other projects, held against lists that are written out here the way those projects document them."""

import keras
import pytest

from toolkit.weights.naming import namings

INCEPTIONS = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
BATCH_NORM = ["weight", "bias", "running_mean", "running_var"]


def torch_resnet(depths, convolutions, *, classifier="fc"):
    names = ["conv1.weight", *(f"bn1.{v}" for v in BATCH_NORM), f"{classifier}.weight", f"{classifier}.bias"]
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            for number in range(1, convolutions + 1):
                names.append(f"layer{stage}.{block}.conv{number}.weight")
                names += [f"layer{stage}.{block}.bn{number}.{v}" for v in BATCH_NORM]
    return names


def projections(stages):
    names = []
    for stage in stages:
        names.append(f"layer{stage}.0.downsample.0.weight")
        names += [f"layer{stage}.0.downsample.1.{v}" for v in BATCH_NORM]
    return names


def weight_and_bias(layers):
    return [f"{layer}.{v}" for layer in layers for v in ("weight", "bias")]


def blobs(layers):
    return [f"{layer}/{number}" for layer in layers for number in (0, 1)]


VGG16_BN = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
GOOGLENET_UNITS = ["conv1", "conv2", "conv3", "aux1.conv", "aux2.conv"] + [
    f"inception{letters}.{branch}"
    for letters in INCEPTIONS
    for branch in ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
]
NIN = ["conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4", "conv3", "cccp5", "cccp6"]
CAFFE_PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
LISTS = {
    ("resnet18", "torchvision"): torch_resnet((2, 2, 2, 2), 2) + projections((2, 3, 4)),
    ("resnet152", "torchvision"): torch_resnet((3, 8, 36, 3), 3) + projections((1, 2, 3, 4)),
    ("resnet20", "akamaster"): torch_resnet((3, 3, 3), 2, classifier="linear"),
    ("vgg11", "torchvision"): weight_and_bias(
        [f"features.{n}" for n in (0, 3, 6, 8, 11, 13, 16, 18)] + [f"classifier.{n}" for n in (0, 3, 6)]
    ),
    ("vgg16_bn", "timm"): weight_and_bias([f"features.{n}" for n in VGG16_BN])
    + [f"features.{n + 1}.{v}" for n in VGG16_BN for v in BATCH_NORM]
    + weight_and_bias(["pre_logits.fc1", "pre_logits.fc2", "head.fc"]),
    ("vgg16", "caffe"): blobs(
        [f"conv{stage}_{n}" for stage, depth in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, depth + 1)]
        + ["fc6", "fc7", "fc8"]
    ),
    ("alexnet_owt", "torchvision"): weight_and_bias(
        [f"features.{n}" for n in (0, 3, 6, 8, 10)] + [f"classifier.{n}" for n in (1, 4, 6)]
    ),
    ("alexnet", "caffe"): blobs(["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]),
    ("nin", "caffe"): blobs([*NIN, "conv4-1024", "cccp7-1024", "cccp8-1024"]),
    ("nin_cifar", "caffe"): blobs(NIN),
    ("googlenet", "caffe"): blobs(
        ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3", "loss3/classifier"]
        + [f"loss{n}/{part}" for n in (1, 2) for part in ("conv", "fc", "classifier")]
        + [f"inception_{letters}/{part}" for letters in INCEPTIONS for part in CAFFE_PARTS]
    ),
    ("googlenet_bn", "torchvision"): [f"{unit}.conv.weight" for unit in GOOGLENET_UNITS]
    + [f"{unit}.bn.{v}" for unit in GOOGLENET_UNITS for v in BATCH_NORM]
    + weight_and_bias(["fc", "aux1.fc1", "aux1.fc2", "aux2.fc1", "aux2.fc2"]),
}  # fmt: skip


@pytest.mark.parametrize(("network", "source"), LISTS)
def test_every_name_has_its_own_place_and_every_place_a_name(network, source, outline):
    naming = next(naming for naming in namings(network) if naming.source == source)
    addresses = [naming.address(name) for name in LISTS[network, source]]
    options = {"aux_heads": True} if network.startswith("googlenet") else {}
    model = outline(network, **options)
    ours = {(layer.name, str(number)) for layer in model.layers for number in range(len(layer.weights))}
    assert sorted(map(str, addresses)) == sorted(map(str, ours))


APPLICATIONS = [
    ("resnet50", "ResNet50"),
    ("resnet101", "ResNet101"),
    ("resnet152", "ResNet152"),
    ("vgg16", "VGG16"),
    ("vgg19", "VGG19"),
]


@pytest.mark.parametrize(("network", "reference"), APPLICATIONS)
def test_names_of_keras_applications(network, reference, outline):
    naming = next(naming for naming in namings(network) if naming.source == "keras.applications")
    theirs = outline(getattr(keras.applications, reference), weights=None, include_top=False)
    found = [
        naming.address(f"{layer.name}/{number}") for layer in theirs.layers for number in range(len(layer.weights))
    ]
    variant = {"version": "v1", "use_bias": True} if network.startswith("resnet") else {}
    model = outline(network, include_top=False, **variant)
    ours = {(layer.name, str(number)) for layer in model.layers for number in range(len(layer.weights))}
    assert sorted(map(str, found)) == sorted(map(str, ours))
    assert naming.address("predictions/1") == ("head_logits", "1")


def test_names_of_nobody_have_no_place():
    for network in ("resnet50", "vgg16_bn", "googlenet", "googlenet_bn", "alexnet", "nin"):
        for naming in namings(network)[:-1]:
            for name in ("weight", "layer9.weight", "layer1.0.conv1.momentum", "inception_3a/9x9/0", "encoder/conv1/0"):
                assert naming.address(name) is None, (network, naming.source, name)


def test_a_project_and_its_variant():
    torch, applications, own = namings("resnet50")
    assert torch.variant({("stem_conv", "0")}) == {}
    assert applications.variant({("stem_conv", "0"), ("stem_conv", "1")}) == {
        "version": "v1", "epsilon": 1.001e-5, "use_bias": True,
    }  # fmt: skip
    assert own.variant({("stem_bn", "gamma"), ("stem_conv", "bias"), ("stage4_block1_shortcut_conv", "kernel")}) == {
        "use_bias": True
    }
    assert namings("resnet20")[0].variant({("stage2_block1_shortcut_conv", "0")}) == {"shortcut": "B"}
