"""Packages that a worker's networks need, imported by the process that it is forked from.

None of them starts a thread. TensorFlow is left out: it does, and only the engine ``savedmodel`` needs it.
"""

import importlib.util

import ai_edge_litert.interpreter
import pydantic

from toolkit.lazy import import_openvino

__all__ = ["ai_edge_litert", "pydantic"]

if importlib.util.find_spec("openvino") is not None:
    import_openvino()
