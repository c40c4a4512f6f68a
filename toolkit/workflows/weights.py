"""Pretrained weights: what there is, whether it is here and whole, and any file of them in our own form."""

import os
from pathlib import Path
from typing import Any

from toolkit.catalogue import list_models, model_info
from toolkit.errors import UserError
from toolkit.spec import PretrainedWeights

_PUBLISHED = ("top1", "top5", "published_in", "num_classes", "licence", "url", "digest")


def list_weights(model_name: str | None = None) -> list[dict[str, Any]]:
    """List what was published, one row per network and tag, with the file in the cache if it is there."""
    from toolkit.weights.download import cached_path

    names = list_models() if model_name is None else [model_info(model_name).name]
    rows = []
    for name in names:
        for tag, entry in sorted(model_info(name).weights.items()):
            path = cached_path(entry)
            row: dict[str, Any] = {"name": name, "tag": tag, "stands_for": entry.tag}
            row |= {key: getattr(entry, key) for key in _PUBLISHED}
            rows.append(row | {"cached": str(path) if path.is_file() else None})
    return rows


def download_weights(model_name: str, tag: str = "imagenet") -> Path:
    """Bring a tag's file into the cache, if it is not there, and check it.

    Raises:
        UserError: no such tag, or the file cannot be had.
    """
    from toolkit.weights.download import fetch_weights

    info = model_info(model_name)
    if tag not in info.weights:
        known = ", ".join(sorted(info.weights)) or f"none ({info.weights_note})"
        raise UserError(f"unknown weights {tag!r} for {info.name}; tags: {known}")
    return fetch_weights(info.weights[tag])


def verify_weights(model_name: str, weights: str) -> dict[str, Any]:
    """Check the file of a tag against its digest without downloading it, and load it, or any file, into the network.

    Returns:
        ``{"path", "digest", "source", "variant", "num_tensors", "preprocessing"}``; ``digest`` is None where the
        source gave none.

    Raises:
        UserError: the file is not there, is damaged, or does not fit.
    """
    from toolkit.factory import create_model, locate_weights, preprocessing_of
    from toolkit.factory.source import open_source
    from toolkit.weights.download import cached_path, digest_of

    info = model_info(model_name)
    located, digest = locate_weights(info, weights), ""
    path = cached_path(located) if isinstance(located, PretrainedWeights) else located
    if isinstance(located, PretrainedWeights):
        digest = digest_of(located, path)
        if not path.is_file():
            raise UserError(f"{path}: not downloaded; `toolkit weights download {model_name} {weights}` brings it")
    model = create_model(info.name, weights=weights)  # compares the digest of a tag's file
    source = open_source(path, info.name)
    return {
        "path": str(path),
        "digest": digest or None,
        "source": source.naming.source,
        "variant": dict(model.variant),
        "num_tensors": len(source.file.tensors),
        "preprocessing": preprocessing_of(model).as_dict(),
    }


def convert_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], model_name: str, *, deeper: str | None = None
) -> dict[str, Any]:
    """Write any file that fits the network, or one of its tags, as ``.safetensors`` or ``.weights.h5``.

    Args:
        source: a weights file, or a tag.
        target: the file to write.
        model_name: the network that ``source`` is for.
        deeper: a deeper network of its family that ``target`` is for, with the same answers (``transfer.deepen``).

    Returns:
        ``{"path", "bytes", "variant"}``.

    Raises:
        UserError: it cannot be read, does not fit, ``target`` has another suffix, or ``deeper`` does not continue
            the network.
    """
    from toolkit.factory import create_model, save_weights
    from toolkit.factory.save import require_target

    require_target(target)
    model = create_model(model_name, weights=source)
    if deeper is not None:
        from toolkit.transfer import deepen

        model = deepen(model, deeper, **model.variant)
    path = save_weights(model, target)
    return {"path": str(path), "bytes": path.stat().st_size, "variant": dict(model.variant)}
