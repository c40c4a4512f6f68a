"""VGG networks: torchvision's, trained anew and with batch normalisation too, and the authors' own, from Oxford.

The authors' are in two files, Caffe's, which they published, and Keras', ported from it. timm keeps the dense layers as
convolutions, hence a layout of its own.
"""

from toolkit.spec import PretrainedWeights, Published
from toolkit.weights.naming import CAFFE
from toolkit.weights.tables.sources import keras, timm, torchvision

TV1 = "imagenet-tv1"
TIMM_TV1 = "imagenet-timm-tv1"
AUTHORS = "CC-BY-4.0"


def oxford(model: str, top5: float, *, digest: str, page: str) -> PretrainedWeights:
    """The authors' Caffe model. What they published of it is no centre crop's accuracy, so there is no top-1."""
    return PretrainedWeights(
        tag="imagenet-caffe",
        url=f"https://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/{model}.caffemodel",
        digest=digest,
        num_bytes=None,
        num_classes=1000,
        layout="caffe",
        preprocessing=CAFFE,
        top5=top5,
        published_in=f"gist.github.com/ksimonyan/{page}, evaluated densely at three scales",
        licence=AUTHORS,
    )


PUBLISHED = {
    "vgg11": Published(
        [
            torchvision(TV1, "vgg11-8a719046.pth", 69.020, 88.628),
            timm(
                TIMM_TV1,
                "vgg11.tv_in1k",
                69.050,
                88.630,
                sha256="682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg13": Published(
        [
            torchvision(TV1, "vgg13-19584684.pth", 69.928, 89.246),
            timm(TIMM_TV1, "vgg13.tv_in1k", 69.950, 89.262),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg16": Published(
        [
            # Not the authors' digest: OpenCV's tests have used the file by it (opencv_extra, testdata/dnn).
            oxford(
                "VGG_ILSVRC_16_layers",
                0.925,
                digest="sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
                page="211839e770f7b538e2d8",
            ),
            keras("vgg16/vgg16", "64373286793e3c8b2b4e3219cbf3544b", 71.3, 90.1, licence=AUTHORS),
            torchvision(TV1, "vgg16-397923af.pth", 71.592, 90.382),
            timm(
                TIMM_TV1,
                "vgg16.tv_in1k",
                71.594,
                90.398,
                sha256="57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg19": Published(
        [
            oxford("VGG_ILSVRC_19_layers", 0.925, digest="", page="3785162f95cd2d5fee77"),
            keras("vgg19/vgg19", "cbe5617147190e668d6c5d5026f83318", 71.3, 90.0, licence=AUTHORS),
            torchvision(TV1, "vgg19-dcbb9e9d.pth", 72.376, 90.876),
            timm(
                TIMM_TV1,
                "vgg19.tv_in1k",
                72.400,
                90.878,
                sha256="11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg11_bn": Published(
        [
            torchvision(TV1, "vgg11_bn-6002323d.pth", 70.370, 89.810),
            timm(TIMM_TV1, "vgg11_bn.tv_in1k", 70.374, 89.802),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg13_bn": Published(
        [
            torchvision(TV1, "vgg13_bn-abd245e5.pth", 71.586, 90.374),
            timm(
                TIMM_TV1,
                "vgg13_bn.tv_in1k",
                71.560,
                90.372,
                sha256="7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg16_bn": Published(
        [
            torchvision(TV1, "vgg16_bn-6c64b313.pth", 73.360, 91.516),
            timm(
                TIMM_TV1,
                "vgg16_bn.tv_in1k",
                73.354,
                91.490,
                sha256="88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
    "vgg19_bn": Published(
        [
            torchvision(TV1, "vgg19_bn-c79401a0.pth", 74.218, 91.842),
            timm(
                TIMM_TV1,
                "vgg19_bn.tv_in1k",
                74.230,
                91.848,
                sha256="f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312",
            ),
        ],
        imagenet=TIMM_TV1,
    ),
}
