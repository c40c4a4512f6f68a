"""The weights that were published for each network, and why there are none for the others.

``"imagenet"`` stands for the first of a network's rows for ImageNet: the best top-1 at 224×224, which of the residual
networks is also the best on ImageNet-V2 (timm's results-imagenetv2-matched-frequency.csv). Where torchvision's file
holds the same tensors as the hub's, the hub's comes first: its digest is complete and nothing in it is pickled.
"""

from dataclasses import replace

from toolkit.spec import IMAGENET, PretrainedWeights
from toolkit.weights.naming import CAFFE_ROUNDED, INCEPTION
from toolkit.weights.sources import TIMM, akamaster, caffe_zoo, keras, oxford, timm, torchvision

# Trained on 227×227 out of 256×256, less the mean picture, of which these are the channels' means.
BVLC = replace(CAFFE_ROUNDED, size=(227, 227), crop_fraction=227 / 256)
SECOND_RECIPE = replace(IMAGENET, crop_fraction=224 / 232)  # torchvision's: shorter side to 232
SECOND_RECIPE_TIMM = replace(IMAGENET, crop_fraction=0.965)  # the same, as timm writes it
RA4 = replace(INCEPTION, interpolation="bicubic", crop_fraction=0.9)
APACHE, CREATIVE = "Apache-2.0", "CC-BY-4.0"
# The residual networks' authors' own, as ported to Keras; all others are v1.5.
AUTHORS = {"version": "v1", "use_bias": True, "epsilon": 1.001e-5}

PUBLISHED: dict[str, list[PretrainedWeights]] = {
    "alexnet": [
        # CaffeNet's 0.3 points more come from another order of layers; the first one has the paper's.
        caffe_zoo("imagenet-caffe", "bvlc_alexnet", 57.1, 80.2, BVLC, {"layout": "bvlc_alexnet"}),
        caffe_zoo(
            "imagenet-caffenet", "bvlc_reference_caffenet", 57.4, 80.4, BVLC, {"layout": "bvlc_reference_caffenet"}
        ),
    ],
    "alexnet_owt": [torchvision("imagenet-tv1", "alexnet-owt-7be5be79.pth", 56.522, 79.066)],
    "googlenet": [caffe_zoo("imagenet-caffe", "bvlc_googlenet", 68.7, 88.9, CAFFE_ROUNDED)],
    # torchvision normalises as for its other networks, then turns that inside the network into (x - 0.5) / 0.5.
    "googlenet_bn": [torchvision("imagenet-tv1", "googlenet-1378be20.pth", 69.778, 89.530, INCEPTION)],
    "nin": [
        PretrainedWeights(
            tag="imagenet-caffe",
            url="https://www.dropbox.com/s/0cidxafrb2wuwxw/nin_imagenet.caffemodel?dl=1",
            # The gist once printed a sha1, but the one of the author's CIFAR-10 model.
            digest="",
            num_classes=1000,
            layout="caffe",
            preprocessing=CAFFE_ROUNDED,
            top1=0.5936,
            published_in="gist.github.com/mavenlin/d802a5849de39225bcc6",
            licence="BSD",
        )
    ],
    "resnet18": [
        timm("imagenet-timm-a1", "resnet18.a1_in1k", 71.504, 90.086, TIMM, APACHE),
        timm("imagenet-timm-tv1", "resnet18.tv_in1k", 69.752, 89.082),
        torchvision("imagenet-tv1", "resnet18-f37072fd.pth", 69.758, 89.078),
    ],
    "resnet34": [
        timm("imagenet-timm-ra4", "resnet34.ra4_e3600_r224_in1k", 77.492, 93.498, RA4, APACHE),
        timm("imagenet-timm-a1", "resnet34.a1_in1k", 76.420, 92.896, TIMM, APACHE),
        timm("imagenet-timm-tv1", "resnet34.tv_in1k", 73.298, 91.422),
        torchvision("imagenet-tv1", "resnet34-b627a593.pth", 73.314, 91.420),
    ],
    "resnet50": [
        timm("imagenet-timm-tv2", "resnet50.tv2_in1k", 80.846, 95.430, SECOND_RECIPE_TIMM),
        timm("imagenet-timm-a1", "resnet50.a1_in1k", 80.382, 94.598, TIMM, APACHE),
        timm("imagenet-timm-tv1", "resnet50.tv_in1k", 76.156, 92.866),
        torchvision("imagenet-tv2", "resnet50-11ad3fa6.pth", 80.858, 95.434, SECOND_RECIPE),
        torchvision("imagenet-tv1", "resnet50-0676ba61.pth", 76.130, 92.862),
        keras("resnet/resnet50", 74.9, 92.1, "MIT", AUTHORS),
    ],
    "resnet101": [
        timm("imagenet-timm-a1h", "resnet101.a1h_in1k", 81.950, 95.760, TIMM, APACHE),
        timm("imagenet-timm-a1", "resnet101.a1_in1k", 81.494, 95.164, TIMM, APACHE),
        timm("imagenet-timm-tv2", "resnet101.tv2_in1k", 81.906, 95.768, SECOND_RECIPE_TIMM),
        timm("imagenet-timm-tv1", "resnet101.tv_in1k", 77.404, 93.552),
        torchvision("imagenet-tv2", "resnet101-cd907fc2.pth", 81.886, 95.780, SECOND_RECIPE),
        torchvision("imagenet-tv1", "resnet101-63fe2227.pth", 77.374, 93.546),
        keras("resnet/resnet101", 76.4, 92.8, "MIT", AUTHORS),
    ],
    "resnet152": [
        timm("imagenet-timm-a1h", "resnet152.a1h_in1k", 82.818, 96.124, TIMM, APACHE),
        timm("imagenet-timm-a1", "resnet152.a1_in1k", 81.998, 95.294, TIMM, APACHE),
        timm("imagenet-timm-tv2", "resnet152.tv2_in1k", 82.294, 96.000, SECOND_RECIPE_TIMM),
        timm("imagenet-timm-tv1", "resnet152.tv_in1k", 78.330, 94.046),
        torchvision("imagenet-tv2", "resnet152-f82ba261.pth", 82.284, 96.002, SECOND_RECIPE),
        torchvision("imagenet-tv1", "resnet152-394f9c45.pth", 78.312, 94.046),
        keras("resnet/resnet152", 76.6, 93.1, "MIT", AUTHORS),
    ],
    "resnet20": [akamaster("resnet20-12fca82f.th", 8.27)],
    "resnet32": [akamaster("resnet32-d509ac18.th", 7.37)],
    "resnet44": [akamaster("resnet44-014dd654.th", 6.90)],
    "resnet56": [akamaster("resnet56-4bfd9763.th", 6.61)],
    "resnet110": [akamaster("resnet110-1d1ed7c2.th", 6.32)],
    # The VGG networks' authors' own are in two files: Caffe's, which they published, and Keras', ported from it.
    "vgg11": [
        timm("imagenet-timm-tv1", "vgg11.tv_in1k", 69.050, 88.630),
        torchvision("imagenet-tv1", "vgg11-8a719046.pth", 69.020, 88.628),
    ],
    "vgg13": [
        timm("imagenet-timm-tv1", "vgg13.tv_in1k", 69.950, 89.262),
        torchvision("imagenet-tv1", "vgg13-19584684.pth", 69.928, 89.246),
    ],
    "vgg16": [
        timm("imagenet-timm-tv1", "vgg16.tv_in1k", 71.594, 90.398),
        torchvision("imagenet-tv1", "vgg16-397923af.pth", 71.592, 90.382),
        oxford("VGG_ILSVRC_16_layers", 92.5, "211839e770f7b538e2d8", CREATIVE),
        keras("vgg16/vgg16", 71.3, 90.1, CREATIVE),
    ],
    "vgg19": [
        timm("imagenet-timm-tv1", "vgg19.tv_in1k", 72.400, 90.878),
        torchvision("imagenet-tv1", "vgg19-dcbb9e9d.pth", 72.376, 90.876),
        oxford("VGG_ILSVRC_19_layers", 92.5, "3785162f95cd2d5fee77", CREATIVE),
        keras("vgg19/vgg19", 71.3, 90.0, CREATIVE),
    ],
    "vgg11_bn": [
        timm("imagenet-timm-tv1", "vgg11_bn.tv_in1k", 70.374, 89.802),
        torchvision("imagenet-tv1", "vgg11_bn-6002323d.pth", 70.370, 89.810),
    ],
    "vgg13_bn": [
        timm("imagenet-timm-tv1", "vgg13_bn.tv_in1k", 71.560, 90.372),
        torchvision("imagenet-tv1", "vgg13_bn-abd245e5.pth", 71.586, 90.374),
    ],
    "vgg16_bn": [
        timm("imagenet-timm-tv1", "vgg16_bn.tv_in1k", 73.354, 91.490),
        torchvision("imagenet-tv1", "vgg16_bn-6c64b313.pth", 73.360, 91.516),
    ],
    "vgg19_bn": [
        timm("imagenet-timm-tv1", "vgg19_bn.tv_in1k", 74.230, 91.848),
        torchvision("imagenet-tv1", "vgg19_bn-c79401a0.pth", 74.218, 91.842),
    ],
}

_STOCHASTIC = (
    "its authors published code, but no weights (github.com/yueatsprograms/Stochastic_Depth); those of {} fit by path"
)
#: A tag that is missing should not look forgotten.
UNPUBLISHED = {
    **dict.fromkeys(
        ("lenet5", "lenet5_rgb", "mlp", "softmax_regression"), "no weights were published; it trains in minutes"
    ),
    **dict.fromkeys(("highway_cnn19", "highway_cnn32", "highway_mlp"), "its authors published no weights"),
    **dict.fromkeys(
        ("plain18", "plain20", "plain32", "plain34", "plain44", "plain56", "plain110"),
        "a control of He et al.'s comparison; no weights of it were published",
    ),
    **{f"{name}_sd": _STOCHASTIC.format(name) for name in ("resnet56", "resnet110")},
    "exercise_cnn": "this toolkit's own exercise; no weights were published",
    "nin_cifar": (
        "the first author's cifar10_nin.caffemodel (89.6 %, gist.github.com/mavenlin/e56253735ef32c3c296d) was "
        "trained on pictures after contrast normalisation and whitening, which no preprocessing here does; give "
        "its path to load it all the same"
    ),
    "xo": "its filters are fixed by hand: there is nothing to load",
    "zfnet": (
        "its authors published no weights; the ZF model of Faster R-CNN (ZF.v2.caffemodel) pads and normalises "
        "otherwise and is not this network"
    ),
}
