"""A bundle to the hub, with its network in ONNX beside it where that is asked for."""

from pathlib import Path
from typing import Any

from toolkit import hub
from toolkit.hub.push import ONNX
from toolkit.workflows.onnx import export_onnx


def push_bundle(
    bundle: Path, address: str, *, private: bool = False, licence: str | None = None, onnx: bool = False
) -> dict[str, Any]:
    """Bring a bundle to the hub, see ``toolkit.hub.push_bundle``.

    Args:
        bundle: ``NAME``, or ``NAME/VERSION``.
        address: ``hf://OWNER/NAME``, or with a tag behind ``@``.
        private: see ``toolkit.hub.PushOptions``.
        licence: see there.
        onnx: write ``model.onnx`` too, held against Keras first.
    """

    def written(folder: Path) -> dict[str, tuple[Path, str]]:
        export_onnx(bundle, folder / ONNX)
        return {ONNX: (folder / ONNX, "the network for ONNX Runtime: `pixels` in, `probabilities` out")}

    return hub.push_bundle(bundle, address, hub.PushOptions(private, licence, written if onnx else None))
