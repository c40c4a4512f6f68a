"""Calls that bring bundles to the Hugging Face hub and from there."""

import os
from pathlib import Path
from typing import Any

from toolkit.api.calls import call


@call
def push(
    bundle: str | os.PathLike[str],
    address: str,
    *,
    private: bool = False,
    licence: str | None = None,
    onnx: bool = False,
) -> dict[str, Any]:
    """Bring a bundle to the hub, with a model card and its network's weights as safetensors.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        address: ``hf://user/name``; its version becomes the tag, or give one, as in ``hf://user/name@v2``.
        private: make the repository, if it is not there yet, for its owner alone.
        licence: of the weights, such as ``"Apache-2.0"``; by default that of the published ones it began with.
        onnx: put a ``model.onnx`` beside it.

    Returns:
        ``{"bundle", "address", "url", "commit", "files"}``: the address to pull it by, and its page.

    Raises:
        UserError: a file is damaged, or the hub does not answer, refuses, or has this version; ``TOOLKIT_OFFLINE=1``
            forbids to ask it.
    """
    from toolkit.workflows.deploy.hub import push_bundle

    return push_bundle(Path(bundle), address, private=private, licence=licence, onnx=onnx)


@call
def pull(address: str, directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Bring a bundle here from the hub, whole and as its manifest's checksums say, or not at all.

    Args:
        address: ``hf://user/name``, or a version of it, ``hf://user/name@v2``.
        directory: the bundle, ``saved_models/NAME``, of which it becomes the next version.

    Returns:
        ``{"bundle", "address", "commit"}``.

    Raises:
        UserError: there is no such bundle, a file of it is damaged, or the hub does not answer; ``TOOLKIT_OFFLINE=1``
            forbids to ask it.
    """
    from toolkit.hub.pull import pull_bundle

    return pull_bundle(address, Path(directory))
