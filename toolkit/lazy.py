"""Heavy modules, imported when first touched instead of when named.

Listing networks, printing help and reporting a mistyped name must not wait for a framework to load, and yet a
network's file should read ``layers.Conv2D(…)`` from top to bottom.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


#: Packages that Keras and TensorFlow import wherever they find them, with the modules that do, for what nothing here
#: asks of them: JAX functions as LiteRT files, Orbax, galleries, data frames, scikit-learn's interface.
_COMPANIONS = {
    "jax": ("tensorflow.", "keras.src.callbacks."),  # Keras on JAX has imported it by then
    "matplotlib": ("keras.",),
    "pandas": ("keras.", "tf_keras."),
    "sklearn": ("keras.",),
}


@contextmanager
def without_companions() -> Iterator[None]:
    """Have Keras and TensorFlow imported, in this ``with``, without the packages that they offer to work with.

    Those are a third of the memory that the import takes, and half of its time. Everybody else finds them as ever. For
    a process that is ours alone: one who calls this package as a library may want them of his Keras.
    """
    finder = _NoCompanions()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoCompanions:
    """Tells Keras and TensorFlow, asked for a companion, that there is none; whoever else asks is passed on."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name not in _COMPANIONS:
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
            frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith(_COMPANIONS[name]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# Keras is imported from here, everywhere: `from toolkit.lazy import keras`.
if TYPE_CHECKING:
    import keras
    from keras import layers
else:
    keras = lazy_module("keras")
    layers = lazy_module("keras.layers")
