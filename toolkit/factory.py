"""From a name to a ready network: a builder joined with its head and its weights."""

import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.lazy import lazy_module
from toolkit.registry import model_info, unknown_name
from toolkit.spec import ModelInfo, UserError

keras = lazy_module("keras")
log = logging.getLogger("toolkit")

Arrays = dict[str, list[Any]]
# Where a classifier's weights lie: in Network in Network's, they are a convolution's.
_HEADS = ("head_logits", "head_conv")
_COMMON = {"input_shape", "num_classes", "include_top", "pooling", "name"}


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    **variant: Any,
) -> Any:
    """Build a network by name.

    Args:
        name: one of ``toolkit.list_models()``.
        num_classes: number of logits, the network's default where None; without effect on a backbone.
        input_shape: ``(height, width, channels)``, the network's default where None.
        weights: None for fresh ones, a tag in ``model_info(name).weights``, or the path of a weights file.
        include_top: with the classifier, giving float32 logits ``(N, num_classes)``, or only the backbone.
        pooling: what makes a vector of a backbone's feature map: None, ``"avg"`` or ``"max"``.
        **variant: keywords of the network's builder, such as ``version="v1"`` for ResNet-50.

    Returns:
        A flat functional ``keras.Model`` whose layer names start with a stage of ``model_info(name).stages``.

    Raises:
        UserError: an unknown name, keyword or tag, an impossible shape, or a weights file that does not fit.

    >>> create_model("lenet5", num_classes=3).output_shape
    (None, 3)
    """
    info = model_info(name)
    shape = info.input_shape if input_shape is None else input_shape
    classes = info.num_classes if num_classes is None else num_classes
    _check_arguments(shape, classes, include_top, pooling)
    _check_variant(info, variant)
    path = None if weights is None else _weights_path(info, weights)
    model = info.build(
        input_shape=tuple(shape),
        num_classes=classes,
        include_top=include_top,
        pooling=pooling,
        name=name,
        **variant,
    )
    if path is not None:
        _load(model, path, "auto", classifier_wanted=include_top)
    return model


def load_weights(model: Any, path: str | os.PathLike[str], format: str = "auto") -> None:
    """Fill a model from a file, by layer name and shape, complete both ways or not at all.

    Where only the number of classes differs, the classifier keeps its fresh weights and the logger
    ``toolkit`` says so.

    Args:
        model: a flat ``keras.Model``.
        path: a ``.keras`` or ``.weights.h5`` file.
        format: ``"keras"``, ``"weights.h5"``, or ``"auto"`` to go by the file's name.

    Raises:
        UserError: the file is missing or damaged, its format is unknown, or it does not fit the model.
    """
    _load(model, Path(path), format, classifier_wanted=True)


def _check_arguments(shape: Any, num_classes: int, include_top: bool, pooling: str | None) -> None:
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise UserError(f"input_shape must be (height, width, channels), three positive integers, got {shape}")
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    if include_top and pooling is not None:
        raise UserError(f"pooling={pooling!r} is for a backbone: give include_top=False with it, or leave it out")
    if keras.config.image_data_format() != "channels_last":
        raise UserError("networks here are channels_last; call keras.config.set_image_data_format('channels_last')")


def _check_variant(info: ModelInfo, variant: dict[str, Any]) -> None:
    known = [keyword for keyword in inspect.signature(info.build).parameters if keyword not in _COMMON]
    for keyword in variant:
        if keyword not in known:
            if not known:
                raise UserError(f"unknown keyword {keyword!r}; {info.name} has no variants")
            raise UserError(unknown_name("keyword", keyword, known, listing=f"{info.name} has {', '.join(known)}"))


def _weights_path(info: ModelInfo, weights: str | os.PathLike[str]) -> Path:
    path = Path(weights)
    # A path object, a separator or a suffix says that a file is meant, whether or not it is there.
    if not isinstance(weights, str) or path.suffix or path.parent != Path() or path.exists():
        return path
    tags = ", ".join(sorted(info.weights)) or "none"
    raise UserError(f"unknown weights {weights!r} for {info.name}; tags: {tags}; or give the path of a weights file")


def _load(model: Any, path: Path, format: str, *, classifier_wanted: bool) -> None:
    source = _read(path, format)
    if not classifier_wanted:
        source = _without_classifier(model, source, path)
    target = {layer.name: layer.weights for layer in model.layers if layer.weights}
    head = next((name for name in _HEADS if name in target), _HEADS[0])
    if _other_classes(source, target, head):
        log.info(
            "%s: %s keeps its fresh weights: the file has %d classes, the model %d",
            path, head, source[head][0].shape[-1], target[head][0].shape[-1],
        )  # fmt: skip
        source, target = ({k: v for k, v in side.items() if k != head} for side in (source, target))
    problems = _mismatches(source, target)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UserError(f"{path} does not fit model {model.name!r}: {shown}")
    for name, variables in target.items():
        for variable, array in zip(variables, source[name], strict=True):
            variable.assign(array)


def _without_classifier(model: Any, source: Arrays, path: Path) -> Arrays:
    own = {layer.name for layer in model.layers}
    dropped = [name for name in source if name.startswith("head_") and name not in own]
    if dropped:
        log.info("%s: leaving out %s, which a backbone has no use for", path, ", ".join(dropped))
    return {name: arrays for name, arrays in source.items() if name not in dropped}


def _other_classes(source: Arrays, target: Arrays, head: str) -> bool:
    """Whether the classifiers differ in nothing but their number of classes."""
    if head not in source or head not in target:
        return False
    ours, theirs = ([tuple(weight.shape) for weight in side[head]] for side in (target, source))
    return ours != theirs and [shape[:-1] for shape in ours] == [shape[:-1] for shape in theirs]


def _mismatches(source: Arrays, target: Arrays) -> list[str]:
    missing = [f"the file lacks layer {name!r}" for name in target if name not in source]
    left_over = [f"the model lacks layer {name!r}" for name in source if name not in target]
    shapes = {
        name: ([tuple(a.shape) for a in source[name]], [tuple(v.shape) for v in target[name]])
        for name in target
        if name in source
    }
    differing = [
        f"layer {name!r} has shapes {_listed(theirs)} in the file and {_listed(ours)} in the model"
        for name, (theirs, ours) in shapes.items()
        if theirs != ours
    ]
    return missing + left_over + differing


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " ".join("×".join(map(str, shape)) or "scalar" for shape in shapes)


def _read(path: Path, format: str) -> Arrays:
    if format == "auto":
        format = next((known for known in _READERS if path.name.endswith(f".{known}")), path.name)
    if format not in _READERS:
        known = ", ".join(f".{name}" for name in _READERS)
        raise UserError(f"cannot read weights from {format!r}; formats: {known}")
    if not path.is_file():
        raise UserError(f"no weights file at {path}")
    try:
        return _READERS[format](path)
    except UserError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as it can be damaged
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} is not a readable .{format} file: {reason}") from error


def _read_keras(path: Path) -> Arrays:
    import toolkit.layers  # noqa: F401 - registers the custom layers a saved model may hold

    saved = keras.saving.load_model(path, compile=False, safe_mode=True)
    return {layer.name: [weight.numpy() for weight in layer.weights] for layer in saved.layers if layer.weights}


def _read_weights_h5(path: Path) -> Arrays:
    """Arrays by layer name: Keras writes each layer's name beside its variables, numbered 0, 1, …"""
    import h5py

    arrays: Arrays = {}
    with h5py.File(path, "r") as file:
        layers = file.get("layers")
        if not isinstance(layers, h5py.Group):
            raise UserError(f"{path} holds no group 'layers': it was not written by model.save_weights of Keras 3")
        layers.visititems(lambda place, group: _collect(arrays, place, group))
    return arrays


def _collect(arrays: Arrays, place: str, group: Any) -> None:
    *owner, last = place.split("/")
    # Random-seed states of dropout and the like are no weights.
    if last != "vars" or "seed_generator" in owner or len(group) == 0:
        return
    name = group.attrs.get("name", "/".join(owner))
    if name in arrays:
        raise UserError(f"two layers of the file are named {name!r}; names must tell layers apart")
    arrays[name] = [_dataset(group, str(index)) for index in range(len(group))]


def _dataset(group: Any, key: str) -> Any:
    import h5py

    # HDF5 can point into any other file of the machine; a weights file has no business to.
    if not isinstance(group.get(key, getlink=True), h5py.HardLink) or group[key].external or group[key].is_virtual:
        raise UserError(f"{group.file.filename}: {group.name}/{key} is kept in another file; refusing to follow it")
    return group[key][()]


_READERS: dict[str, Callable[[Path], Arrays]] = {"keras": _read_keras, "weights.h5": _read_weights_h5}
