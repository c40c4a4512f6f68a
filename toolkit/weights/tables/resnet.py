"""Residual networks on ImageNet: torchvision's two recipes, timm's, and the authors' own as ported to Keras.

All but Keras' are v1.5. ``imagenet`` stands for the best top-1 at 224×224, which is also the best on ImageNet-V2
(timm's results-imagenetv2-matched-frequency.csv), and for the hub's file where torchvision's holds the same tensors:
its digest is complete and nothing in it is pickled.
"""

from dataclasses import replace

from toolkit.spec import IMAGENET, Published
from toolkit.weights.naming import INCEPTION
from toolkit.weights.tables.sources import TIMM, keras, timm, torchvision

SECOND_RECIPE = replace(IMAGENET, crop_fraction=224 / 232)  # torchvision's: shorter side to 232
SECOND_RECIPE_TIMM = replace(IMAGENET, crop_fraction=0.965)  # the same, as timm writes it
RA4 = replace(INCEPTION, interpolation="bicubic", crop_fraction=0.9)
AUTHORS = {"version": "v1", "use_bias": True, "epsilon": 1.001e-5}
APACHE = "Apache-2.0"

PUBLISHED = {
    "resnet18": Published(
        [
            torchvision("imagenet-tv1", "resnet18-f37072fd.pth", 69.758, 89.078),
            timm(
                "imagenet-timm-tv1",
                "resnet18.tv_in1k",
                69.752,
                89.082,
                sha256="694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
            ),
            timm(
                "imagenet-timm-a1",
                "resnet18.a1_in1k",
                71.504,
                90.086,
                sha256="80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
                preprocessing=TIMM,
                licence=APACHE,
            ),
        ],
        imagenet="imagenet-timm-a1",
    ),
    "resnet34": Published(
        [
            torchvision("imagenet-tv1", "resnet34-b627a593.pth", 73.314, 91.420),
            timm("imagenet-timm-tv1", "resnet34.tv_in1k", 73.298, 91.422),
            timm("imagenet-timm-a1", "resnet34.a1_in1k", 76.420, 92.896, preprocessing=TIMM, licence=APACHE),
            timm(
                "imagenet-timm-ra4",
                "resnet34.ra4_e3600_r224_in1k",
                77.492,
                93.498,
                preprocessing=RA4,
                licence=APACHE,
            ),
        ],
        imagenet="imagenet-timm-ra4",
    ),
    "resnet50": Published(
        [
            keras("resnet/resnet50", "2cb95161c43110f7111970584f804107", 74.9, 92.1, licence="MIT", variant=AUTHORS),
            torchvision("imagenet-tv1", "resnet50-0676ba61.pth", 76.130, 92.862),
            torchvision("imagenet-tv2", "resnet50-11ad3fa6.pth", 80.858, 95.434, preprocessing=SECOND_RECIPE),
            timm(
                "imagenet-timm-tv1",
                "resnet50.tv_in1k",
                76.156,
                92.866,
                sha256="5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
            ),
            timm("imagenet-timm-tv2", "resnet50.tv2_in1k", 80.846, 95.430, preprocessing=SECOND_RECIPE_TIMM),
            timm(
                "imagenet-timm-a1",
                "resnet50.a1_in1k",
                80.382,
                94.598,
                sha256="773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
                preprocessing=TIMM,
                licence=APACHE,
            ),
        ],
        imagenet="imagenet-timm-tv2",
    ),
    "resnet101": Published(
        [
            keras("resnet/resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", 76.4, 92.8, licence="MIT", variant=AUTHORS),
            torchvision("imagenet-tv1", "resnet101-63fe2227.pth", 77.374, 93.546),
            torchvision("imagenet-tv2", "resnet101-cd907fc2.pth", 81.886, 95.780, preprocessing=SECOND_RECIPE),
            timm("imagenet-timm-tv1", "resnet101.tv_in1k", 77.404, 93.552),
            timm("imagenet-timm-tv2", "resnet101.tv2_in1k", 81.906, 95.768, preprocessing=SECOND_RECIPE_TIMM),
            timm(
                "imagenet-timm-a1",
                "resnet101.a1_in1k",
                81.494,
                95.164,
                sha256="1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380",
                preprocessing=TIMM,
                licence=APACHE,
            ),
            timm(
                "imagenet-timm-a1h",
                "resnet101.a1h_in1k",
                81.950,
                95.760,
                sha256="1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
                preprocessing=TIMM,
                licence=APACHE,
            ),
        ],
        imagenet="imagenet-timm-a1h",
    ),
    "resnet152": Published(
        [
            keras("resnet/resnet152", "100835be76be38e30d865e96f2aaae62", 76.6, 93.1, licence="MIT", variant=AUTHORS),
            torchvision("imagenet-tv1", "resnet152-394f9c45.pth", 78.312, 94.046),
            torchvision("imagenet-tv2", "resnet152-f82ba261.pth", 82.284, 96.002, preprocessing=SECOND_RECIPE),
            timm(
                "imagenet-timm-tv1",
                "resnet152.tv_in1k",
                78.330,
                94.046,
                sha256="15897077afdf4d6334dc0c3f8e6fb483afb3faa9298c139f3c6eb29bca6ae5b2",
            ),
            timm("imagenet-timm-tv2", "resnet152.tv2_in1k", 82.294, 96.000, preprocessing=SECOND_RECIPE_TIMM),
            timm("imagenet-timm-a1", "resnet152.a1_in1k", 81.998, 95.294, preprocessing=TIMM, licence=APACHE),
            timm("imagenet-timm-a1h", "resnet152.a1h_in1k", 82.818, 96.124, preprocessing=TIMM, licence=APACHE),
        ],
        imagenet="imagenet-timm-a1h",
    ),
}
