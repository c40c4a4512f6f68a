"""A bundle to the hub, with its network in ONNX beside it where that is asked for."""

from pathlib import Path
from typing import Any

from toolkit.hub import push
from toolkit.workflows.onnx import export_onnx


def push_bundle(
    bundle: Path, address: str, *, private: bool = False, licence: str | None = None, onnx: bool = False
) -> dict[str, Any]:
    """Bring a bundle to the hub, see ``toolkit.hub.push.push_bundle``.

    Args:
        bundle: ``NAME``, or ``NAME/VERSION``.
        address: ``hf://OWNER/NAME``, or with a tag behind ``@``.
        private: see ``toolkit.hub.push.PushOptions``.
        licence: see there.
        onnx: write ``model.onnx`` too, held against Keras first.
    """

    def written(folder: Path) -> dict[str, tuple[Path, str]]:
        export_onnx(bundle, folder / push.ONNX)
        return {push.ONNX: (folder / push.ONNX, "the network for ONNX Runtime: `pixels` in, `probabilities` out")}

    return push.push_bundle(bundle, address, push.PushOptions(private, licence, written if onnx else None))
