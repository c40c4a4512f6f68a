"""AlexNet: Caffe's two replications of the network of 2012, and torchvision's of that of 2014."""

from dataclasses import replace

from toolkit.spec import Published
from toolkit.weights.naming import CAFFE_ROUNDED
from toolkit.weights.tables.sources import caffe_zoo, torchvision

# Trained on 227×227 out of 256×256, less the mean picture, of which these are the channels' means.
BVLC = replace(CAFFE_ROUNDED, size=(227, 227), crop_fraction=227 / 256)

PUBLISHED = {
    "alexnet": Published(
        [
            caffe_zoo(
                "imagenet-caffe",
                "bvlc_alexnet",
                "9116a64c0fbe4459d18f4bb6b56d647b63920377",
                57.1,
                80.2,
                preprocessing=BVLC,
                variant={"layout": "bvlc_alexnet"},
            ),
            caffe_zoo(
                "imagenet-caffenet",
                "bvlc_reference_caffenet",
                "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
                57.4,
                80.4,
                preprocessing=BVLC,
                variant={"layout": "bvlc_reference_caffenet"},
            ),
        ],
        # CaffeNet's 0.3 points more come from another order of layers; this one has the paper's.
        imagenet="imagenet-caffe",
    ),
    "alexnet_owt": Published(
        [torchvision("imagenet-tv1", "alexnet-owt-7be5be79.pth", 56.522, 79.066)],
        imagenet="imagenet-tv1",
    ),
}
