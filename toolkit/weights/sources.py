"""The projects that publish weights, and what all files of one of them share.

Accuracies are given in per cent, as the sources print them: top-1 and top-5 of one centre crop on the 50,000 pictures
of ImageNet's validation set, unless a row says otherwise.
"""

from dataclasses import replace
from typing import Any

from toolkit.spec import IMAGENET, Preprocessing, PretrainedWeights
from toolkit.weights.naming import CAFFE, IMAGENET_32

TIMM = replace(IMAGENET, interpolation="bicubic", crop_fraction=0.95)
AKAMASTER = "github.com/akamaster/pytorch_resnet_cifar10"

#: The sources' own checksums, by file. Not every file has one; torchvision's stand in the files' names.
DIGESTS = {
    # Caffe: the readme of each model.
    "bvlc_alexnet": "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
    "bvlc_googlenet": "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
    "bvlc_reference_caffenet": "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
    # Not the authors': OpenCV's tests have used the file by it (opencv_extra, testdata/dnn).
    "VGG_ILSVRC_16_layers": "sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
    # keras.applications.
    "resnet/resnet50": "md5:2cb95161c43110f7111970584f804107",
    "resnet/resnet101": "md5:f1aeb4b969a6efcfb50fad2f0c20cfc5",
    "resnet/resnet152": "md5:100835be76be38e30d865e96f2aaae62",
    "vgg16/vgg16": "md5:64373286793e3c8b2b4e3219cbf3544b",
    "vgg19/vgg19": "md5:cbe5617147190e668d6c5d5026f83318",
    # timm: the hub's pages.
    "resnet18.tv_in1k": "sha256:694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    "resnet18.a1_in1k": "sha256:80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
    "resnet50.tv_in1k": "sha256:5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    "resnet50.a1_in1k": "sha256:773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
    "resnet101.a1_in1k": "sha256:1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380",
    "resnet101.a1h_in1k": "sha256:1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
    "resnet152.tv_in1k": "sha256:15897077afdf4d6334dc0c3f8e6fb483afb3faa9298c139f3c6eb29bca6ae5b2",
    "vgg11.tv_in1k": "sha256:682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
    "vgg16.tv_in1k": "sha256:57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    "vgg19.tv_in1k": "sha256:11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
    "vgg13_bn.tv_in1k": "sha256:7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861",
    "vgg16_bn.tv_in1k": "sha256:88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
    "vgg19_bn.tv_in1k": "sha256:f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312",
    # The files in akamaster's repository at d5489e8; of the last, the digits in its name.
    "resnet20-12fca82f.th": "sha256:12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    "resnet32-d509ac18.th": "sha256:d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
    "resnet44-014dd654.th": "sha256:014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
    "resnet56-4bfd9763.th": "sha256:4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
    "resnet110-1d1ed7c2.th": "sha256:1d1ed7c2",
}


def torchvision(
    tag: str, file: str, top1: float, top5: float, preprocessing: Preprocessing = IMAGENET
) -> PretrainedWeights:
    """A file of torchvision's. Its name ends with the first eight digits of its sha256."""
    return PretrainedWeights(
        tag=tag,
        url=f"https://download.pytorch.org/models/{file}",
        digest=f"sha256:{file.removesuffix('.pth')[-8:]}",
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
    preprocessing: Preprocessing = IMAGENET,
    licence: str = "BSD-3-Clause",
) -> PretrainedWeights:
    """The safetensors file of a repository of timm's on the Hugging Face hub."""
    return PretrainedWeights(
        tag=tag,
        url=f"hf://timm/{repository}/model.safetensors",
        digest=DIGESTS.get(repository, ""),
        num_classes=1000,
        layout="timm" if repository.startswith("vgg") else "torchvision",  # VGG's dense layers are convolutions there
        preprocessing=preprocessing,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in="timm, results/results-imagenet.csv at commit aa4b585",
        licence=licence,
    )


def keras(
    file: str, top1: float, top5: float, licence: str, variant: dict[str, Any] | None = None
) -> PretrainedWeights:
    """A file of keras.applications, with the classifier; ported from the Caffe models of the papers' authors."""
    return PretrainedWeights(
        tag="imagenet-keras",
        url=f"https://storage.googleapis.com/tensorflow/keras-applications/{file}_weights_tf_dim_ordering_tf_kernels.h5",
        digest=DIGESTS[file],
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
    tag: str, model: str, top1: float, top5: float, preprocessing: Preprocessing, variant: dict[str, Any] | None = None
) -> PretrainedWeights:
    """A model that comes with Caffe. Its server answers no https; the digest is what a download is trusted by."""
    return PretrainedWeights(
        tag=tag,
        url=f"http://dl.caffe.berkeleyvision.org/{model}.caffemodel",
        digest=DIGESTS[model],
        num_classes=1000,
        layout="caffe",
        preprocessing=preprocessing,
        top1=fraction(top1),
        top5=fraction(top5),
        published_in=f"github.com/BVLC/caffe, models/{model}/readme.md",
        licence="unrestricted use",
        variant=variant or {},
    )


def oxford(model: str, top5: float, gist: str, licence: str) -> PretrainedWeights:
    """VGG's authors' Caffe model. What they published of it is no centre crop's accuracy, so there is no top-1."""
    return PretrainedWeights(
        tag="imagenet-caffe",
        url=f"https://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/{model}.caffemodel",
        digest=DIGESTS.get(model, ""),
        num_classes=1000,
        layout="caffe",
        preprocessing=CAFFE,
        top5=fraction(top5),
        published_in=f"gist.github.com/ksimonyan/{gist}, evaluated densely at three scales",
        licence=licence,
    )


def akamaster(file: str, error: float) -> PretrainedWeights:
    """A network for CIFAR-10 by Yerlan Idelbayev; ``error`` in per cent, as his README prints it.

    It is that of the best epoch on the test set: he held no pictures back to choose by.
    """
    return PretrainedWeights(
        tag="cifar10",
        url=f"https://{AKAMASTER}/raw/master/pretrained_models/{file}",
        digest=DIGESTS[file],
        num_classes=10,
        layout="akamaster",
        preprocessing=IMAGENET_32,
        top1=fraction(100 - error),
        published_in=f"{AKAMASTER}, README.md; best epoch on the test set",
        licence="BSD-2-Clause",
        variant={"shortcut": "A"},
    )


def fraction(per_cent: float) -> float:
    """Without the digits that binary division adds: 76.13 becomes 0.7613."""
    return round(per_cent / 100, 6)
