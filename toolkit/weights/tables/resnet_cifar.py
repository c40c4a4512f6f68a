"""Residual networks on CIFAR-10, option A, by Yerlan Idelbayev; trained with ImageNet's channel statistics.

The accuracy is that of the best epoch on the test set: he held no pictures back to choose by. File names end with the
first eight digits of the sha256. The whole digests and the sizes are of the files in his repository at d5489e8.
"""

from toolkit.spec import PretrainedWeights, Published
from toolkit.weights.naming import IMAGENET_32
from toolkit.weights.tables.sources import fraction

REPOSITORY = "github.com/akamaster/pytorch_resnet_cifar10"


def akamaster(file: str, error: float, *, sha256: str, num_bytes: int | None) -> PretrainedWeights:
    """A file of the repository; ``error`` in per cent, as its README prints it."""
    return PretrainedWeights(
        tag="cifar10",
        url=f"https://{REPOSITORY}/raw/master/pretrained_models/{file}",
        digest=f"sha256:{sha256}",
        num_bytes=num_bytes,
        num_classes=10,
        layout="akamaster",
        preprocessing=IMAGENET_32,
        top1=fraction(100 - error),
        published_in=f"{REPOSITORY}, README.md; best epoch on the test set",
        licence="BSD-2-Clause",
        variant={"shortcut": "A"},
    )


FILES = {
    "resnet20": akamaster(
        "resnet20-12fca82f.th",
        8.27,
        sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        num_bytes=1_099_231,
    ),
    "resnet32": akamaster(
        "resnet32-d509ac18.th",
        7.37,
        sha256="d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        num_bytes=1_890_043,
    ),
    "resnet44": akamaster(
        "resnet44-014dd654.th",
        6.90,
        sha256="014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
        num_bytes=2_680_855,
    ),
    "resnet56": akamaster(
        "resnet56-4bfd9763.th",
        6.61,
        sha256="4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        num_bytes=3_471_733,
    ),
    "resnet110": akamaster("resnet110-1d1ed7c2.th", 6.32, sha256="1d1ed7c2", num_bytes=None),
}

PUBLISHED = {name: Published([file]) for name, file in FILES.items()} | {
    f"{name}_sd": Published(
        note="its authors published code, but no weights (github.com/yueatsprograms/Stochastic_Depth); "
        f"those of {name} fit by path"
    )
    for name in ("resnet56", "resnet110")
}
