"""Build networks by name and fill them with weights: ``create_model`` and ``load_weights``."""

import inspect
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.bundle import SHIPPED, shipped_bundle
from toolkit.catalogue import model_info
from toolkit.errors import UserError, unknown_name
from toolkit.factory.fill import fill
from toolkit.factory.keras_applications import is_application, open_application
from toolkit.factory.source import WeightsSource, network_in, open_source
from toolkit.lazy import keras
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing, PretrainedWeights
from toolkit.weights.readers.detect import check_file

log = logging.getLogger("toolkit")

# What changes a network's answers without a trace in the shapes of its tensors.
_UNSEEN = ("version", "layout", "epsilon")


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    sum_channels: bool = False,
    **variant: Any,
) -> "keras.Model":
    """Build a network by name.

    ``preprocessing_of`` the result tells what turns a picture into its input. Weights bring their own: of the tag,
    of the project whose names the file follows, or what ``save_weights`` wrote into it.

    Args:
        name: one of ``toolkit.list_models()``, or ``"keras.applications:MobileNetV2"`` and the like.
        num_classes: number of logits, that of the network or its weights where None; without effect on a backbone.
        input_shape: ``(height, width, channels)``, that of the network or its weights where None.
        weights: None for fresh ones, a tag in ``model_info(name).weights`` (downloaded once, then read from the cache),
            or the path of a weights file, a bundle or a run. The variant its tensors fit is chosen and named by the
            logger ``toolkit``.
            A ``.weights.h5`` that Keras wrote tells nothing beside tensors: name the variant it was trained as.
        include_top: with the classifier, giving float32 logits ``(N, num_classes)``, or only the backbone.
        pooling: what makes a vector of a backbone's feature map: None, ``"avg"`` or ``"max"``.
        sum_channels: where weights for colour meet an ``input_shape`` of one channel, sum the first convolution's
            filters over their channels. A grey picture then answers as its colour version of equal channels, up to the
            channels' own means and deviations, which are averaged.
        **variant: keywords of the network's builder, such as ``version="v1"`` for ResNet-50, or of the function in
            keras.applications, such as ``alpha=0.5``.

    Returns:
        A flat functional ``keras.Model`` whose layer names start with a stage of ``model_info(name).stages``.

    Raises:
        UserError: an unknown name, keyword or tag, an impossible shape, weights that cannot be had, or that do not
            fit; the message lists what does not.

    >>> create_model("lenet5", num_classes=3).output_shape
    (None, 3)
    """
    if is_application(name):
        if not include_top or pooling is not None or sum_channels:
            raise UserError(
                f"include_top, pooling and sum_channels are for the networks of `toolkit models`, not for {name}; "
                "its features are keras.Model(model.input, model.layers[-1].input)"
            )
        return open_application(name, num_classes=num_classes, input_shape=input_shape, weights=weights, **variant)
    info = model_info(name)
    located = None if weights is None else locate_weights(info, weights)  # a mistyped path needs no framework
    _check_arguments(info, input_shape, num_classes, include_top, pooling)
    _check_variant(info, variant)
    source = None if located is None else _source(info, located)
    preprocessing = info.preprocessing if source is None else source.preprocessing or info.preprocessing
    height, width, channels = input_shape or preprocessing.input_shape
    shape = height, width, channels
    _check_size(info, shape)
    arguments = variant if source is None else _accepted(info, source.variant, include_top) | variant
    classes = num_classes or (source and source.num_classes) or info.num_classes
    model = info.build(BuildOptions(name, shape, classes, include_top, pooling), **arguments)
    model.preprocessing, model.variant = _fitted(preprocessing, shape), arguments
    if source is not None:
        fill(model, source, backbone=not include_top, fresh_head=num_classes is not None, sum_channels=sum_channels)
        _say(name, source, arguments)
    return model


def load_weights(model: "keras.Model", path: str | os.PathLike[str], format: str = "auto") -> None:
    """Fill a model from a file, by layer name and shape, complete both ways or not at all.

    Where only the number of classes differs, the classifier keeps its fresh weights and the logger ``toolkit`` says
    so. ``preprocessing_of`` the model becomes what the file's weights were trained on, where the file tells.

    Args:
        model: a flat ``keras.Model``; for files of other projects one that ``create_model`` built and named.
        path: a ``.keras``, ``.weights.h5``, keras.applications ``.h5``, ``.safetensors``, torch ``.pth``, ``.pt`` or
            ``.th``, or ``.caffemodel`` file.
        format: ``"keras"``, ``"weights.h5"``, ``"h5"``, ``"safetensors"``, ``"torch"``, ``"caffemodel"``, or
            ``"auto"`` to go by the file's content.

    Raises:
        UserError: the file is missing or damaged, its format is unknown, or it does not fit the model, be it for
            another variant of the network only.
    """
    source = open_source(Path(path), model.name, format, layers={layer.name for layer in model.layers})
    _check_same_variant(model, source)
    fill(model, source)
    if source.preprocessing is not None:
        model.preprocessing = _fitted(source.preprocessing, model.input_shape[1:])


def locate_weights(info: ModelInfo, weights: str | os.PathLike[str]) -> PretrainedWeights | Path:
    """Resolve ``weights`` to a tag's entry or the path of a file, bundle or run; no weights are read yet.

    Raises:
        UserError: neither a tag nor a path, or nothing is there.
    """
    if isinstance(weights, str) and weights in info.weights:
        return info.weights[weights]
    path = Path(weights)
    if not path.exists():
        path = shipped_bundle(path) or path
    if path.is_dir():
        network_in(path)
        return path
    if path.exists():
        check_file(path)
        return path
    # A path object, a separator or a suffix says that a file is meant.
    if not isinstance(weights, str) or path.suffix or path.parent != Path():
        raise UserError(f"no weights file at {path}")
    tags = ", ".join(sorted(info.weights)) or "none"
    shipped = [name for name in SHIPPED if name.startswith(f"{info.name}-")]
    own = f"; the project's own: {', '.join(shipped)}" if shipped else ""
    note = f" ({info.weights_note})" if info.weights_note else ""
    what = "has no weights of ImageNet" if weights == "imagenet" else f"has no weights {weights!r}"
    raise UserError(f"{info.name} {what}; tags: {tags}{note}{own}; or give the path of a weights file")


def preprocessing_of(model: "keras.Model") -> Preprocessing:
    """Look up the preprocessing of a network that ``create_model`` built.

    Raises:
        UserError: the model was made otherwise, or saved and loaded since.

    >>> preprocessing_of(create_model("lenet5")).size
    (32, 32)
    """
    preprocessing = getattr(model, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        raise UserError(
            f"model {model.name!r} does not say how its pictures are prepared; give preprocessing=…, "
            "such as toolkit.model_info(NAME).preprocessing"
        )
    return preprocessing


def _check_arguments(
    info: ModelInfo, shape: Any, num_classes: int | None, include_top: bool, pooling: str | None
) -> None:
    shape = info.input_shape if shape is None else shape
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise UserError(f"input_shape must be (height, width, channels), three positive integers, got {shape}")
    if num_classes is not None and num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    if include_top and pooling is not None:
        raise UserError(f"pooling={pooling!r} is for a backbone: give include_top=False with it, or leave it out")
    if keras.config.image_data_format() != "channels_last":
        raise UserError("networks here are channels_last; call keras.config.set_image_data_format('channels_last')")


def _check_size(info: ModelInfo, shape: tuple[int, ...]) -> None:
    """Refuse pictures that would vanish on the way down."""
    if min(shape[:2]) < info.min_size:
        least = (info.min_size, info.min_size, shape[2])
        raise UserError(
            f"{info.name} needs pictures of at least {info.min_size}×{info.min_size}, got input_shape={shape}; "
            f"give input_shape={least} or larger"
        )


def _check_variant(info: ModelInfo, variant: dict[str, Any]) -> None:
    known = list(_keywords(info))
    for keyword in variant:
        if keyword not in known:
            if not known:
                raise UserError(f"unknown keyword {keyword!r}; {info.name} has no variants")
            raise UserError(unknown_name("keyword", keyword, known, listing=f"{info.name} has {', '.join(known)}"))


def _keywords(info: ModelInfo) -> dict[str, Any]:
    """Keywords that the network's builder has beside its options, with their defaults."""
    parameters = inspect.signature(info.build).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _accepted(info: ModelInfo, variant: dict[str, Any], include_top: bool) -> dict[str, Any]:
    """The part of a variant that the builder takes and does not do by itself."""
    defaults = _keywords(info)
    return {
        keyword: value
        for keyword, value in variant.items()
        # A backbone has no auxiliary heads, whatever the file's network had.
        if keyword in defaults and value != defaults[keyword] and (include_top or keyword != "aux_heads")
    }


def _check_same_variant(model: "keras.Model", source: WeightsSource) -> None:
    """As in ``create_model``, a keyword that was given counts for more than what the file takes for granted."""
    given = getattr(model, "variant", None)
    if given is None:  # not of create_model: nothing tells
        return
    defaults = _keywords(model_info(model.name))
    needed = {
        keyword: value
        for keyword, value in source.variant.items()
        if keyword in _UNSEEN and keyword in defaults and keyword not in given and value != defaults[keyword]
    }
    if needed:
        listed = ", ".join(f"{keyword}={value!r}" for keyword, value in sorted(needed.items()))
        raise UserError(
            f"{source.file.path} is for {model.name!r} with {listed}, and this model was built without; "
            f"give create_model the same, or the file as weights"
        )


def _source(info: ModelInfo, weights: PretrainedWeights | Path) -> WeightsSource:
    if isinstance(weights, Path) and weights.is_dir():
        file, preprocessing = network_in(weights)
        source = open_source(file, info.name)
        return replace(source, preprocessing=preprocessing or info.preprocessing)
    if isinstance(weights, Path):
        return open_source(weights, info.name)
    from toolkit.weights.download import fetch_weights

    source = open_source(fetch_weights(weights), info.name)
    # What the table says of the file counts for more than what its kind takes for granted.
    return replace(source, preprocessing=weights.preprocessing, variant=source.variant | weights.variant)


def _fitted(preprocessing: Preprocessing, shape: tuple[int, ...]) -> Preprocessing | None:
    """The same preprocessing for another input size, or for grey in place of colour; None for what is no picture."""
    height, width, channels = shape
    if channels not in (1, 3):
        return None
    if channels != preprocessing.channels:
        mean, std = ((sum(values) / len(values),) * channels for values in (preprocessing.mean, preprocessing.std))
        preprocessing = replace(preprocessing, channel_order="grey" if channels == 1 else "rgb", mean=mean, std=std)
    return preprocessing.resized((height, width))


def _say(name: str, source: WeightsSource, arguments: dict[str, Any]) -> None:
    if source.naming.source == "toolkit" and not arguments:
        return
    listed = ", ".join(f"{keyword}={value!r}" for keyword, value in sorted(arguments.items())) or "no variant"
    taken = source.preprocessing
    pictures = "" if taken is None else f"; pictures {taken.channel_order}, mean {taken.mean}, std {taken.std}"
    log.info("%s: weights by %s from %s, %s%s", name, source.naming.source, source.file.path, listed, pictures)
