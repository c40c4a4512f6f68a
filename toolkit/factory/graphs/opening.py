"""Opening a file by its kind, and holding the network that is built of it against what the file answers."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bundle import GRAPH, MANIFEST
from toolkit.errors import UserError, first_line
from toolkit.factory.graphs.graph_file import GraphFile
from toolkit.lazy import keras, lazy_module
from toolkit.progress import step
from toolkit.spec import GRAPH_SUFFIXES

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

log = logging.getLogger("toolkit")

#: Largest difference between the network and its file, relative to the largest answer.
TOLERANCE = 1e-4
#: The same of a file that computes in half precision.
HALF_TOLERANCE = 0.02
#: The same, on average over pictures of noise, of a file that computes with rounded numbers.
QUANTIZED_TOLERANCE = 0.5
_LEAST = 1e-9  # of a network that answers nought


def is_graph(path: str | os.PathLike[str]) -> bool:
    """Tell if a path is of a kind that ``open_graph`` reads; a bundle's version, a SavedModel too, is not."""
    place = Path(path)
    if place.is_dir():
        return (place / GRAPH).is_file() and not (place / MANIFEST).exists()
    return place.suffix.lower() in GRAPH_SUFFIXES


def open_graph(path: Path, size: tuple[int, int] | None) -> GraphFile:
    """Build a file's network in Keras.

    Args:
        path: an ``.onnx`` or ``.tflite`` file, or a SavedModel's folder.
        size: height and width, for a network that takes any; None where they are not known.

    Raises:
        UserError: the file is damaged, is no classifier of pictures, or has an operator without a rule here.
    """
    if path.is_dir():
        from toolkit.factory.graphs.saved_model import open_saved_model

        return open_saved_model(path, size)
    if path.suffix.lower() == ".onnx":
        from toolkit.factory.graphs.onnx_file import open_onnx

        return open_onnx(path, size)
    from toolkit.factory.graphs.litert_file import open_litert

    return open_litert(path)


def check_answers(path: Path, file: GraphFile, inputs: "np.ndarray") -> float:
    """Hold a network against its file.

    Args:
        path: the file's.
        file: what was opened.
        inputs: float32 (n, height, width, channels) as the network takes them.

    Returns:
        The largest difference in an answer, relative to the largest answer.

    Raises:
        UserError: they differ by more than rounding, or the file's runtime refuses it.
    """
    with step(f"comparing with {file.runtime}"):
        try:
            theirs = file.answers(inputs)
        except Exception as error:  # each runtime has exceptions of its own
            raise UserError(f"{path}: {file.runtime} cannot run it ({first_line(error)})") from None
        ours = keras.ops.convert_to_numpy(file.network(inputs, training=False))
    if theirs.shape != ours.shape:
        raise UserError(f"{path}: {file.runtime} answers {theirs.shape[1:]}, and its network here {ours.shape[1:]}")
    differences = np.abs(ours - theirs).max(axis=1) / max(_LEAST, float(np.abs(theirs).max()))
    difference = float(differences.mean() if file.quantized else differences.max())
    tolerance = QUANTIZED_TOLERANCE if file.quantized else HALF_TOLERANCE if file.halved else TOLERANCE
    if not difference <= tolerance:  # so that NaN is one too
        raise UserError(
            f"{path}: the network built of it answers otherwise than {file.runtime} does with the file, by "
            f"{difference:.2g} of its largest answer; bring the network in another form (.keras, ONNX, LiteRT, "
            "SavedModel)"
        )
    about = ", as it rounds numbers" if file.quantized or file.halved else ""
    log.info("%s: built anew in Keras; answers differ from %s's by %.1g%s", path, file.runtime, difference, about)
    return difference
