"""Networks that are in no table: opened from anyone's file, with a new classifier and their preprocessing.

Files of this package tell it. Keras' own applications and Teachable Machine's networks are known by the names of their
layers, and so is what they were trained on; networks that scale their input themselves tell it; for others it must be
given.
"""

import json
import logging
import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import get_args

from toolkit.errors import UserError
from toolkit.factory.graphs import check_answers, is_graph, open_graph
from toolkit.factory.graphs.graph_file import GREY, as_they_are, picture_sides
from toolkit.factory.source import noted_preprocessing
from toolkit.lazy import keras, lazy_module
from toolkit.network import as_classifier, load_network, name_stages, require_labels, split_rescaling, with_new_head
from toolkit.spec import IMAGENET, ChannelOrder, Interpolation, Preprocessing, ResizeMode, is_network_name
from toolkit.weights.naming import CAFFE, INCEPTION
from toolkit.weights.readers import read_tensors

np = lazy_module("numpy")
log = logging.getLogger("toolkit")

#: What is read, for messages.
KINDS = "a .keras or .h5 file of a whole model, an .onnx or .tflite file, or a SavedModel's folder"

# A layer that only these networks have, and what turns a picture into their input: the preprocess_input of the module
# in keras.applications; the first that is there.
_APPLICATIONS: tuple[tuple[str, Preprocessing], ...] = (
    ("dense_Dense", replace(INCEPTION, crop_fraction=1.0)),  # Teachable Machine, whose MobileNet sees the whole centre
    ("conv2_block1_preact_bn", INCEPTION),  # ResNet v2
    ("conv2_block1_0_conv", CAFFE),  # ResNet
    ("conv2_block1_0_bn", IMAGENET),  # DenseNet
    ("block1_conv1_bn", INCEPTION),  # Xception
    ("block5_conv3", CAFFE),  # VGG
    ("bn_Conv1", INCEPTION),  # MobileNetV2
    ("conv_dw_1", INCEPTION),  # MobileNet
    ("conv_7b", INCEPTION),  # Inception-ResNet v2
    ("mixed10", INCEPTION),  # Inception v3
    ("stem_bn1", INCEPTION),  # NASNet
)


# Of the 255 from black to white, a network's own scaling makes 1 to 10 by anybody's recipe, or 255 less a mean of 100.
_MOST_SPAN, _LEAST_MEAN = 30.0, 10.0

#: Pictures of noise that a network is compared with its file on.
_NUM_COMPARED = 4

_CHOICES = {
    "resize": get_args(ResizeMode),
    "interpolation": get_args(Interpolation),
    "channel_order": get_args(ChannelOrder),
}


def is_network_file(name: str | os.PathLike[str]) -> bool:
    """Tell the path of a saved network from the name of a registered one."""
    return is_graph(name) or is_network_name(os.fspath(name))


def open_network(
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    num_labels: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> "keras.Model":
    """Open anyone's network, flat and answering logits; ``preprocessing_of`` it tells what it takes.

    Args:
        path: a ``.keras`` or ``.h5`` file of a whole model, an ``.onnx`` or ``.tflite`` file, or a SavedModel's folder.
            Other than Keras' are built anew in Keras, and their answers to noise compared.
        num_classes: of a new, untrained classifier in place of its own; by default it keeps its own.
        num_labels: how many outputs its own classifier must have; by default any number.
        preprocessing: what it was trained with, up to layers in it that scale their input; by default what the file
            or the run around it tells, else looked up.

    Returns:
        A network whose layers have the names they have in the file. A new classifier is ``head_logits``, and behind it
        stand stages to unfreeze, see ``toolkit.network.name_stages``.

    Raises:
        UserError: see ``toolkit.network.load_network``, ``as_classifier``, ``require_labels`` and
            ``toolkit.factory.graphs.open_graph``; or nothing tells the preprocessing, or not all of it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no network at {path}; give {KINDS}")
    graph = open_graph(path, None if preprocessing is None else preprocessing.size) if is_graph(path) else None
    if graph is None:
        file = read_tensors(path)  # a damaged file is found out where it can do no harm
        preprocessing = preprocessing or noted_preprocessing(file)
        given, names = _sized(path, load_network(path), preprocessing), frozenset[str]()
    else:
        given, names = graph.network, graph.names
        if preprocessing is None and graph.preprocessing is not None:
            preprocessing = _framed(graph.preprocessing, given, names)
    model = as_classifier(given) if num_classes is None else with_new_head(given, num_classes)
    if num_labels is not None:
        require_labels(model, num_labels)
    _require_pictures(path, model.input_shape[1:])
    height, width, channels = model.input_shape[1:]
    as_it_is = as_they_are((height, width), channels)
    if preprocessing is not None:
        preprocessing = preprocessing.resized((height, width))
        if preprocessing.channels != channels:
            order = "grey" if channels == 1 else "rgb"
            raise UserError(
                f"{path} takes pictures of {channels} channels, and the preprocessing gives {preprocessing.channels}; "
                f'say "channel_order": "{order}" in it'
            )
        seen = preprocessing
        model, found = split_rescaling(model, seen)
    else:
        network, seen = model, as_it_is
        model, found = split_rescaling(network, seen)
        if model is network:
            seen = found = as_it_is if _scales_itself(names) else _looked_up(path, model, names).resized(as_it_is.size)
        else:
            _require_from_pixels(path, model, found)
    if graph is not None:
        pixels = np.random.default_rng(0).integers(0, 256, (_NUM_COMPARED, height, width, 3), np.uint8)
        from toolkit.data.pixels.decode import normalize  # which imports Pillow

        check_answers(path, graph, normalize(pixels, seen))
    if num_classes is not None:
        model = name_stages(model)
    model.preprocessing = found
    return model


def _sized(path: Path, network: "keras.Model", preprocessing: Preprocessing | None) -> "keras.Model":
    """Give a network that takes pictures of any size the one of its preprocessing, and a grey one its channel."""
    shape = network.inputs[0].shape
    if len(shape) == 3 and len(network.inputs) == 1 and None not in shape[1:]:  # a beginner's Flatten of 28×28
        inputs = keras.Input((*shape[1:], 1))
        return keras.Model(inputs, network(keras.layers.Reshape(shape[1:])(inputs)), name=network.name)
    if len(shape) != 4 or None not in shape[1:3]:
        return network
    listed = "×".join(str(side or "?") for side in shape)
    size = picture_sides(path, listed, shape[1:3], None if preprocessing is None else preprocessing.size)
    inputs = keras.Input((*size, shape[3]))
    return keras.Model(inputs, network(inputs), name=network.name)


def _require_pictures(path: Path, shape: tuple[int, ...]) -> None:
    listed = "×".join(map(str, shape))
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        raise UserError(f"{path}: takes {listed}, channels first; build it with data_format='channels_last'")
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UserError(
            f"{path}: takes {listed}, and pictures are height×width×channels, 1 or 3 of these; put a layer before that "
            "makes its input of them, such as Reshape"
        )


def _scales_itself(names: Collection[str]) -> bool:
    """Tell by the names in a file that it had a layer of Keras which scales the input; converters fold it away."""
    return any(re.fullmatch(r"(rescaling|normalization)(_\d+)*", name) for name in names)


def _framed(pixels: Preprocessing, model: "keras.Model", others: Collection[str]) -> Preprocessing:
    """Frame a file's pixels as its network is known to be trained, whatever form the file has; else leave them."""
    known = None if _scales_itself(others) else _known(model, others)
    return pixels if known is None else replace(pixels, resize=known.resize, crop_fraction=known.crop_fraction)


def _known(model: "keras.Model", others: Collection[str]) -> Preprocessing | None:
    """The preprocessing of a network that the names of its layers, or ``others`` of its file, tell."""
    given = {layer.name for layer in model.layers}.union(others)
    # As Teachable Machine numbers them, and Keras once more.
    once = {re.sub(r"_?\d+$", "", name) for name in given}
    names = given | once | {re.sub(r"_?\d+$", "", name) for name in once}
    if len(model.operations) == len(model.layers):  # operations at its input may prepare pictures themselves
        for layer, preprocessing in _APPLICATIONS:
            if layer in names:
                log.info("%s: its %s tells that it is of a kind whose preprocessing is known", model.name, layer)
                return preprocessing
    return None


def _looked_up(path: Path, model: "keras.Model", others: Collection[str]) -> Preprocessing:
    """The preprocessing that names tell, or an error that asks for it."""
    if known := _known(model, others):
        return known
    # A network in Keras' form can still be changed; what a converter has written is as it is.
    mended = "" if is_graph(path) else ", or put a Rescaling layer at its input"
    raise UserError(
        f"{path} does not say which pictures it was trained on; give a preprocessing: --preprocessing "
        f"{_choices(model)}{mended}"
    )


def _require_from_pixels(path: Path, model: "keras.Model", found: Preprocessing) -> None:
    """Refuse scaling in a file that cannot begin from 0…255: other code divides by 255 before such a network."""
    factor, offset = (np.asarray(values) for values in found.affine())
    subtracts_only = np.allclose(factor, 1) and (np.all(offset == 0) or np.all(offset <= -_LEAST_MEAN))
    if subtracts_only or np.all(255 * factor <= _MOST_SPAN):
        return
    lowest, highest = offset.min(), (offset + 255 * factor).max()
    raise UserError(
        f"{path} scales its input, but not from pixels of 0…255, of which it would make {lowest:.1f}…{highest:.1f}; "
        f"give what comes before: --preprocessing {_choices(model)}"
    )


def _choices(model: "keras.Model") -> str:
    """The usual preprocessings, and what each is for."""
    scale = 0.00392156862745098
    if model.input_shape[-1] == 1:
        to_one, as_pixels = (f'{{"channel_order": "grey", "scale": {value}}}' for value in (scale, 1.0))
        return f"'{to_one}' for 0…1, '{as_pixels}' for 0…255"
    return (
        f"imagenet for a network of torchvision, inception for −1…1, '{{\"scale\": {scale}}}' for 0…1, none for 0…255"
    )


def read_preprocessing(text: str) -> Preprocessing:
    """Read a preprocessing: ``"imagenet"``, ``"caffe"``, ``"inception"``, ``"none"``, or fields as JSON.

    >>> read_preprocessing('{"scale": 1.0, "mean": [104, 117, 123]}').mean
    (104, 117, 123)
    >>> read_preprocessing('{"channel_order": "grey"}').std
    (1.0,)
    """
    known = {"imagenet": IMAGENET, "caffe": CAFFE, "inception": INCEPTION, "none": Preprocessing((224, 224), scale=1.0)}
    if text in known:
        return known[text]
    try:
        values = json.loads(text)
        defaults = GREY if isinstance(values, dict) and values.get("channel_order") == "grey" else {}
        preprocessing = Preprocessing.from_dict({"size": (224, 224), **defaults, **values})
        preprocessing.affine()
        for field, allowed in _CHOICES.items():
            if getattr(preprocessing, field) not in allowed:
                raise ValueError(f"{field} is {', '.join(allowed)}")
        return preprocessing
    except (ValueError, TypeError) as error:
        raise UserError(
            f"cannot read preprocessing {text!r} ({error}); give {', '.join(known)}, or JSON such as "
            '{"scale": 1.0, "mean": [104, 117, 123], "channel_order": "bgr"}'
        ) from error
