"""Heavy modules, imported when first touched instead of when named.

Listing networks, printing help and reporting a mistyped name must not wait for a framework to load, and yet a
network's file should read ``layers.Conv2D(…)`` from top to bottom.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any


class _LazyModule:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # the next time, this method is not called
        return value


def lazy_module(name: str) -> Any:
    """A stand-in for the module ``name`` that imports it at the first attribute looked up.

    >>> lazy_module("math").gcd(12, 18)
    6
    """
    return _LazyModule(name)


def import_openvino() -> Any:
    """Import OpenVINO without what it does besides: telling Google Analytics that it was imported, in a thread.

    It does so without being asked wherever its package for that can be imported, and goes on without where not.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as Python notes what is not there
    return importlib.import_module("openvino")


# Keras is imported from here, everywhere: `from toolkit.lazy import keras`.
if TYPE_CHECKING:
    import keras
    from keras import layers
else:
    keras = lazy_module("keras")
    layers = lazy_module("keras.layers")
