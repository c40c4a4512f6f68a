"""Networks of keras.applications by name: Keras builds them, and their weights and preprocessing are found here.

What each was trained on is a table: Keras keeps it in functions, one a module, that a caller must know to call. Layers
that scale the input, where a network has them, become part of the preprocessing.
"""

import contextlib
import inspect
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.errors import UserError, did_you_mean, nearest, unknown_name
from toolkit.factory.foreign import open_network
from toolkit.factory.source import network_in
from toolkit.files import scratch_folder
from toolkit.lazy import keras, lazy_module
from toolkit.network import as_classifier, name_stages, split_rescaling, with_new_head
from toolkit.progress import step
from toolkit.spec import IMAGENET, Preprocessing
from toolkit.weights.naming import CAFFE, INCEPTION
from toolkit.weights.readers import TensorFile, read_tensors
from toolkit.weights.readers.detect import check_file

np = lazy_module("numpy")

log = logging.getLogger("toolkit")

#: How their names begin, ``"keras.applications:MobileNetV2"``.
PREFIX = "keras.applications:"
#: The tag of the weights that Keras downloads.
IMAGENET_TAG = "imagenet"

_NUM_CLASSES = 1000  # that Keras builds by default
_FORMATS = ("keras", "weights.h5", "h5")
#: Keywords of the functions in keras.applications that are no variants of a network.
_RESERVED = (
    *("include_top", "weights", "input_tensor", "input_shape", "pooling", "classes", "classifier_activation", "name"),
    *("include_preprocessing", "dropout", "dropout_rate"),
)
#: Variants that weights were published for, beside the function's default.
_PUBLISHED: dict[str, tuple[dict[str, Any], ...]] = {
    "MobileNet": tuple({"alpha": alpha} for alpha in (0.25, 0.5, 0.75)),
    "MobileNetV2": tuple({"alpha": alpha} for alpha in (0.35, 0.5, 0.75, 1.3, 1.4)),
    **dict.fromkeys(("MobileNetV3Large", "MobileNetV3Small"), ({"alpha": 0.75}, {"minimalistic": True})),
}

#: Of networks that scale their input themselves.
_RAW = Preprocessing((224, 224), crop_fraction=0.875, scale=1.0)
_RAW_BICUBIC = replace(_RAW, interpolation="bicubic")


def _without_border(preprocessing: Preprocessing, side: int) -> Preprocessing:
    """The crop that EfficientNets are judged by: a border of 16 pixels is left out, whatever the size."""
    return replace(preprocessing, size=(side, side), crop_fraction=side / (side + 32))


#: The preprocessing of each network's weights, by the name of its function: the module's ``preprocess_input``, the
#: input size that Keras takes by default, and the resizing of the paper's evaluation.
PREPROCESSING: dict[str, Preprocessing] = {
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"), CAFFE),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), IMAGENET),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), INCEPTION),
    **dict.fromkeys(("MobileNet", "MobileNetV2", "NASNetMobile"), INCEPTION),
    **dict.fromkeys(("InceptionResNetV2", "InceptionV3", "Xception"), INCEPTION.resized((299, 299))),
    "NASNetLarge": INCEPTION.resized((331, 331)),
    **dict.fromkeys(("MobileNetV3Large", "MobileNetV3Small"), _RAW),
    **{f"ConvNeXt{size}": _RAW_BICUBIC for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    **{
        f"EfficientNetB{number}": _without_border(_RAW_BICUBIC, side)
        for number, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    **{f"EfficientNetV2B{number}": _without_border(_RAW, side) for number, side in enumerate((224, 240, 260, 300))},
    # Inputs of 320 and more are the whole picture, stretched.
    **{
        f"EfficientNetV2{size}": Preprocessing((side, side), resize="stretch", scale=1.0)
        for size, side in {"S": 384, "M": 480, "L": 480}.items()
    },
}


def is_application(name: str | os.PathLike[str]) -> bool:
    """Tell what is meant as a name of keras.applications, though it may be misspelt."""
    return str(name).startswith(PREFIX[:-1]) or name in PREPROCESSING


def require_application(name: str, weights: str | os.PathLike[str] | None = None) -> str:
    """Give the name of a function in ``keras.applications``; nothing is built, and Keras is not imported.

    Raises:
        UserError: there is none of that name, the message suggests the nearest; or ``weights`` are neither
            ``"imagenet"`` nor something at a path.
    """
    own = name.removeprefix(PREFIX)
    if own == name or own not in PREPROCESSING:
        known = sorted(PREPROCESSING)
        meant = name[len(PREFIX) :] if name.startswith(PREFIX[:-1]) else name
        hint = did_you_mean(repr(PREFIX + close) for close in nearest(meant, known))
        raise UserError(f"unknown model {name!r}{hint or '; known: ' + ', '.join(PREFIX + own for own in known)}")
    if weights is None or weights == IMAGENET_TAG or Path(weights).is_dir():
        return own
    path = Path(weights)
    if isinstance(weights, str) and not path.exists() and not path.suffix and path.parent == Path():
        raise UserError(
            f"unknown weights {weights!r} for {name}; give {IMAGENET_TAG}, which Keras downloads, "
            "or the path of a weights file that Keras wrote"
        )
    check_file(path)
    return own


def open_application(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
    **variant: Any,
) -> "keras.Model":
    """Build a network of keras.applications, flat and answering logits; ``preprocessing_of`` it tells what it takes.

    Args:
        name: ``"keras.applications:NAME"``.
        num_classes: of a new, untrained classifier; by default it has that of its weights.
        input_shape: ``(height, width, 3)``, by default what Keras takes.
        weights: None for fresh ones; ``"imagenet"`` for those that Keras downloads, once, to its own cache; a file that
            Keras wrote, with the classifier or without; or a bundle of such a network.
        preprocessing: what it was trained with, up to layers in it that scale their input; by default looked up.
        **variant: further keywords of the function in keras.applications, such as ``alpha=0.5``.

    Raises:
        UserError: an unknown name or keyword, an impossible shape, or weights that cannot be had or do not fit.
    """
    own = require_application(name, weights)
    _check_variant(name, own, variant)
    if weights is not None and weights != IMAGENET_TAG and Path(weights).is_dir():
        path, found = network_in(Path(weights))
        return open_network(path, num_classes=num_classes, preprocessing=preprocessing or found)
    shape = input_shape or PREPROCESSING[own].input_shape
    if weights is None:
        given = _built(own, input_shape=shape, classes=num_classes or _NUM_CLASSES, **variant)
    elif weights == IMAGENET_TAG:
        given = _downloaded(own, shape, variant)
    else:
        given = _filled(own, Path(weights), shape, variant)
    if num_classes is None and len(given.output_shape) != 2:
        raise UserError(f"{weights} has no classifier; give num_classes for a new one")
    given = keras.Model(given.inputs, given.outputs, name=own.lower())  # Keras looks some up by the name they are given
    model = as_classifier(given) if num_classes is None else with_new_head(given, num_classes)
    looked_up = (preprocessing or PREPROCESSING[own]).resized((shape[0], shape[1]))
    model, found = split_rescaling(model, looked_up)
    if num_classes is not None:
        model = name_stages(model)
    model.preprocessing = found
    return model


def _check_variant(name: str, own: str, variant: dict[str, Any]) -> None:
    if not variant:  # and Keras need not be imported
        return
    parameters = inspect.signature(getattr(keras.applications, own)).parameters
    known = [keyword for keyword in parameters if keyword not in _RESERVED]
    for keyword in variant:
        if keyword not in known:
            listing = f"{name} has {', '.join(known) or 'no variants'}"
            raise UserError(unknown_name("keyword", keyword, known, listing=listing))


def _built(own: str, **options: Any) -> "keras.Model":
    options = {"weights": None, "classifier_activation": None} | options
    try:
        return getattr(keras.applications, own)(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{PREFIX}{own} cannot be built: {' '.join(str(error).split())}") from error


def _downloaded(own: str, shape: tuple[int, ...], variant: dict[str, Any]) -> "keras.Model":
    """Build it with the weights that Keras downloads, which with a classifier it does for one input size alone."""
    try:
        # Keras shows how far it is on standard output, which is for answers.
        with step(f"fetching the weights of {PREFIX}{own}"), contextlib.redirect_stdout(sys.stderr):
            given = _built(own, weights=IMAGENET_TAG, **variant)
    except UserError:
        raise
    except Exception as error:  # Keras raises this very class
        raise UserError(
            f"the weights of {PREFIX}{own} cannot be downloaded ({' '.join(str(error).split())}); "
            "fetch the file elsewhere and give its path, --weights PATH"
        ) from error
    if given.input_shape[1:] == shape:
        return given
    model = _built(own, input_shape=shape, **variant)
    if _shapes(model.weights) != _shapes(given.weights):  # dense layers on a map hold for one size
        model = _built(own, input_shape=shape, include_top=False, **variant)
    model.set_weights(given.get_weights()[: len(model.weights)])
    return _with_variances(model)


def _filled(own: str, path: Path, shape: tuple[int, ...], variant: dict[str, Any]) -> "keras.Model":
    """Build it as the file's arrays ask for, and let Keras read them.

    Keras finds their places by the order of layers, whose names differ between its versions.
    """
    file = read_tensors(path)  # a damaged file is found out where it can do no harm
    if file.format not in _FORMATS:
        raise UserError(f"{path} is of format {file.format}; {PREFIX}{own} takes the files that Keras writes")
    given = _shapes(file.tensors.values())
    published = () if variant else _PUBLISHED.get(own, ())
    for more in ({}, *published):
        for include_top in (True, False):
            options = {"input_shape": shape, "include_top": include_top} | variant | more
            model = _built(own, **options)
            classes = _num_classes(given, _shapes(model.weights))
            if classes and include_top:
                model = _built(own, classes=classes, **options)
            if _shapes(model.weights) == given:
                if more:
                    log.info("%s: weights of %s%s with %s", path, PREFIX, own, _listed(more))
                return _with_variances(_loaded(model, file))
    tried = f", nor with {' or '.join(map(_listed, published))}" if published else ""
    raise UserError(
        f"{path} does not hold the arrays of {PREFIX}{own}, with a classifier or without{tried}; "
        "a network of your own is taken whole, saved as a .keras file: --model FILE"
    )


def _listed(variant: dict[str, Any]) -> str:
    return ", ".join(f"{keyword}={value}" for keyword, value in variant.items())


def _shapes(arrays: Iterable[Any]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(array.shape) for array in arrays)


def _num_classes(given: Counter[tuple[int, ...]], built: Counter[tuple[int, ...]]) -> int | None:
    """The number of classes that gives a network built with Keras' thousand the shapes of a file."""
    lacking, more = built - given, given - built
    for shape in more:
        others = Counter({(*own[:-1], shape[-1]): count for own, count in lacking.items() if own[-1] == _NUM_CLASSES})
        if others == more:
            return shape[-1]
    return None


def _loaded(model: "keras.Model", file: TensorFile) -> "keras.Model":
    # Keras goes by the suffix, and people rename files.
    with scratch_folder("toolkit-weights-") as directory:
        link = directory / f"file.{file.format}"
        link.symlink_to(file.path.absolute())
        try:
            model.load_weights(link)
        except Exception as error:  # a file fails in as many ways as it can be another's
            raise UserError(f"{file.path} does not fit {model.name}: {' '.join(str(error).split())[:200]}") from error
    return model


def _with_variances(model: "keras.Model") -> "keras.Model":
    """Mend the ``Normalization`` of EfficientNet's published weights, which hold deviations for variances.

    Keras puts a ``Rescaling`` behind it that makes up for it, but only where it downloads the weights itself.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            mean, variance, *count = layer.get_weights()
            if np.allclose(variance, IMAGENET.std, atol=1e-6):
                layer.set_weights([mean, np.square(variance), *count])
                layer.finalize_state()
    return model
