"""Grow a trained residual network into a deeper one that gives the same answers.

A deeper network can always do at least as well as a shallower one of its family: copy the layers learned and let the
added ones be the identity. He et al. (CVPR 2016) argue from that construction; here it is carried out. In a residual
block the identity is a branch whose last normalisation has gamma and beta zero, since what enters has been rectified.
"""

from typing import Any

from toolkit.errors import UserError
from toolkit.factory import create_model
from toolkit.lazy import keras
from toolkit.network import essence, sources


def deepen(model: "keras.Model", name: str, **variant: Any) -> "keras.Model":
    """Build the deeper network ``name`` with the weights of ``model``, giving the same answers.

    The added blocks compute nothing yet, but their last gammas and betas have gradients: training sets out from the
    shallower network's loss.

    Args:
        model: a residual network, with or without its head; not changed.
        name: a deeper network of the same family and kind of block: resnet20 → resnet56, resnet50 → resnet101.
        **variant: the builder's keywords that ``model`` was built with, where they are not the defaults.

    Returns:
        A new model, every layer trainable, whose outputs and preprocessing are those of ``model``.

    Raises:
        UserError: ``name`` is not deeper, is of another family or variant, or has added blocks that cannot be the
            identity: those of a plain network.
    """
    deeper = create_model(name, **_arguments(model), **variant)
    own = {layer.name: layer for layer in model.layers}
    added = {_block(layer.name) for layer in deeper.layers} - {_block(layer_name) for layer_name in own}
    _check_continues(model, deeper, added)
    if not added:
        raise UserError(f"{name} has no block that {model.name} lacks; give the name of a deeper network")
    for block in sorted(added):
        norm = _last_normalization(deeper, block)
        norm.gamma.assign(keras.ops.zeros_like(norm.gamma))
        norm.beta.assign(keras.ops.zeros_like(norm.beta))
    for layer in deeper.layers:
        if layer.name in own:
            layer.set_weights(own[layer.name].get_weights())
    deeper.preprocessing = getattr(model, "preprocessing", deeper.preprocessing)
    return deeper


def _arguments(model: "keras.Model") -> dict[str, Any]:
    last = model.layers[-1]
    arguments = {"input_shape": tuple(model.input_shape[1:])}
    if last.name == "head_logits":
        return {**arguments, "num_classes": last.units}
    poolings = {keras.layers.GlobalAveragePooling2D: "avg", keras.layers.GlobalMaxPooling2D: "max"}
    return {**arguments, "include_top": False, "pooling": poolings.get(type(last))}


def _block(layer_name: str) -> str:
    """``stage2_block3`` of ``stage2_block3_conv1``; a layer of no block stands for itself."""
    stage, *rest = layer_name.split("_")
    return f"{stage}_{rest[0]}" if len(rest) > 1 and rest[0].startswith("block") else layer_name


def _check_continues(model: "keras.Model", deeper: "keras.Model", added: set[str]) -> None:
    """Refuse unless ``deeper`` without its added blocks is ``model``, layer for layer."""
    ours = {layer.name: _settings(layer) for layer in model.layers}
    theirs = {layer.name: _settings(layer) for layer in deeper.layers if _block(layer.name) not in added}
    for layer_name in [*ours, *theirs]:
        mine, other = ours.get(layer_name), theirs.get(layer_name)
        if mine == other:
            continue
        if mine is None or other is None:
            lacking = model.name if mine is None else deeper.name
            reason = f"{lacking} has no layer {layer_name!r}"
        else:
            key = next(key for key in mine if mine[key] != other.get(key))
            reason = f"layer {layer_name!r} has {key} {mine[key]!r} in one and {other.get(key)!r} in the other"
        raise UserError(
            f"{deeper.name} does not continue {model.name}: {reason}; "
            "give a deeper network of the same family, and the variant that the model was built with"
        )


def _settings(layer: "keras.Layer") -> dict[str, Any]:
    return {"type": type(layer).__name__, **essence(layer.get_config())}


def _last_normalization(model: "keras.Model", block: str) -> "keras.layers.BatchNormalization":
    """The normalisation that ends the branch of an added block; what it is added to must come straight from outside."""
    feeding = sources(model)
    for layer in model.layers:
        if _block(layer.name) == block and isinstance(layer, keras.layers.Add):
            summands = feeding[layer.name]
            outside = [summand for summand in summands if _block(summand.name) != block]
            norms = [summand for summand in summands if isinstance(summand, keras.layers.BatchNormalization)]
            if len(summands) == 2 and len(outside) == len(norms) == 1:
                return norms[0]
    raise UserError(
        f"block {block!r} of {model.name} cannot be made the identity: it has no branch that ends in batch "
        "normalisation and is added to what enters the block"
    )
