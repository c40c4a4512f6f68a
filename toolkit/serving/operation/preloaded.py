"""Imported by the process that a server's workers are forked from, so that a new one has only its networks to load.

None of this starts a thread. TensorFlow is left out: it does, and only the engine ``savedmodel`` needs it.
"""

import importlib.util

import ai_edge_litert.interpreter
import pydantic

import toolkit.inference.predictor
import toolkit.serving.server
from toolkit.lazy import import_openvino

__all__ = ["ai_edge_litert", "pydantic", "toolkit"]

if importlib.util.find_spec("openvino") is not None:
    import_openvino()
