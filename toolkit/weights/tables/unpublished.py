"""Networks nobody published weights for, and why: a tag that is missing should not look forgotten."""

from toolkit.spec import Published

CONTROL = "a control of He et al.'s comparison; no weights of it were published"
HIGHWAY = "its authors published no weights"
MINUTES = "no weights were published; it trains in minutes"
OWN = "this toolkit's own exercise; no weights were published"

NOTES = {
    "exercise_cnn": OWN,
    "highway_cnn19": HIGHWAY,
    "highway_cnn32": HIGHWAY,
    "highway_mlp": HIGHWAY,
    "lenet5": MINUTES,
    "lenet5_rgb": MINUTES,
    "mlp": MINUTES,
    "plain18": CONTROL,
    "plain20": CONTROL,
    "plain32": CONTROL,
    "plain34": CONTROL,
    "plain44": CONTROL,
    "plain56": CONTROL,
    "plain110": CONTROL,
    "softmax_regression": MINUTES,
    "xo": "its filters are fixed by hand: there is nothing to load",
    "zfnet": (
        "its authors published no weights; the ZF model of Faster R-CNN (ZF.v2.caffemodel) pads and normalises "
        "otherwise and is not this network"
    ),
}

PUBLISHED = {name: Published(note=note) for name, note in NOTES.items()}
