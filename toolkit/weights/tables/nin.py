"""Network in Network: the first author's Caffe models."""

from toolkit.spec import PretrainedWeights, Published
from toolkit.weights.naming import CAFFE_ROUNDED

PUBLISHED = {
    "nin": Published(
        [
            PretrainedWeights(
                tag="imagenet-caffe",
                url="https://www.dropbox.com/s/0cidxafrb2wuwxw/nin_imagenet.caffemodel?dl=1",
                # The gist once printed a sha1, but the one of the author's CIFAR-10 model.
                digest="",
                num_bytes=None,
                num_classes=1000,
                layout="caffe",
                preprocessing=CAFFE_ROUNDED,
                top1=0.5936,
                published_in="gist.github.com/mavenlin/d802a5849de39225bcc6",
                licence="BSD",
            )
        ],
        imagenet="imagenet-caffe",
    ),
    "nin_cifar": Published(
        note=(
            "the first author's cifar10_nin.caffemodel (89.6 %, gist.github.com/mavenlin/e56253735ef32c3c296d) was "
            "trained on pictures after contrast normalisation and whitening, which no preprocessing here does; give "
            "its path to load it all the same"
        ),
    ),
}
