"""GoogLeNet: Caffe's, layer for layer the paper's, and torchvision's, which is batch-normalised."""

from toolkit.spec import Published
from toolkit.weights.naming import CAFFE_ROUNDED, INCEPTION
from toolkit.weights.tables.sources import caffe_zoo, torchvision

PUBLISHED = {
    "googlenet": Published(
        [
            caffe_zoo(
                "imagenet-caffe",
                "bvlc_googlenet",
                "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
                68.7,
                88.9,
                preprocessing=CAFFE_ROUNDED,
            )
        ],
        imagenet="imagenet-caffe",
    ),
    "googlenet_bn": Published(
        # torchvision normalises as for its other networks, then turns that inside the network into (x - 0.5) / 0.5.
        [torchvision("imagenet-tv1", "googlenet-1378be20.pth", 69.778, 89.530, preprocessing=INCEPTION)],
        imagenet="imagenet-tv1",
    ),
}
