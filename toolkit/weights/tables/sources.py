"""The projects that publish weights, and what all files of one of them share.

Accuracies are given in per cent, as the sources print them: top-1 and top-5 of one centre crop on the 50,000 pictures
of ImageNet's validation set, unless a row says otherwise.
"""

from dataclasses import replace
from typing import Any

from toolkit.spec import IMAGENET, Preprocessing, PretrainedWeights
from toolkit.weights.naming import CAFFE

TIMM = replace(IMAGENET, interpolation="bicubic", crop_fraction=0.95)


def torchvision(
    tag: str, file: str, top1: float, top5: float, *, preprocessing: Preprocessing = IMAGENET
) -> PretrainedWeights:
    """A file of torchvision's. Its name ends with the first eight digits of its sha256."""
    return PretrainedWeights(
        tag=tag,
        url=f"https://download.pytorch.org/models/{file}",
        digest=f"sha256:{file.removesuffix('.pth')[-8:]}",
        num_bytes=None,
        num_classes=1000,
        layout="torchvision",
        preprocessing=preprocessing,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in="torchvision 0.29.1, metadata in torchvision/models",
        licence="BSD-3-Clause (the code; trained on ImageNet)",
    )


def timm(
    tag: str,
    repository: str,
    top1: float,
    top5: float,
    *,
    sha256: str = "",
    preprocessing: Preprocessing = IMAGENET,
    licence: str = "BSD-3-Clause",
) -> PretrainedWeights:
    """The safetensors file of a repository of timm's on the Hugging Face hub; the hub's pages print its sha256."""
    return PretrainedWeights(
        tag=tag,
        url=f"hf://timm/{repository}/model.safetensors",
        digest=f"sha256:{sha256}" if sha256 else "",
        num_bytes=None,
        num_classes=1000,
        layout="timm" if repository.startswith("vgg") else "torchvision",  # VGG's dense layers are convolutions there
        preprocessing=preprocessing,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in="timm, results/results-imagenet.csv at commit aa4b585",
        licence=licence,
    )


def keras(
    file: str, md5: str, top1: float, top5: float, *, licence: str, variant: dict[str, Any] | None = None
) -> PretrainedWeights:
    """A file of keras.applications, with the classifier; ported from the Caffe models of the papers' authors."""
    return PretrainedWeights(
        tag="imagenet-keras",
        url=f"https://storage.googleapis.com/tensorflow/keras-applications/{file}_weights_tf_dim_ordering_tf_kernels.h5",
        digest=f"md5:{md5}",
        num_bytes=None,
        num_classes=1000,
        layout="keras.applications",
        preprocessing=CAFFE,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in="keras.io/api/applications",
        licence=licence,
        variant=variant or {},
    )


def caffe_zoo(
    tag: str,
    model: str,
    sha1: str,
    top1: float,
    top5: float,
    *,
    preprocessing: Preprocessing,
    variant: dict[str, Any] | None = None,
) -> PretrainedWeights:
    """A model that comes with Caffe. Its server answers no https; the digest is what a download is trusted by."""
    return PretrainedWeights(
        tag=tag,
        url=f"http://dl.caffe.berkeleyvision.org/{model}.caffemodel",
        digest=f"sha1:{sha1}",
        num_bytes=None,
        num_classes=1000,
        layout="caffe",
        preprocessing=preprocessing,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in=f"github.com/BVLC/caffe, models/{model}/readme.md",
        licence="unrestricted use",
        variant=variant or {},
    )


def fraction(per_cent: float) -> float:
    """Without the digits that binary division adds: 76.13 becomes 0.7613."""
    return round(per_cent / 100, 6)
