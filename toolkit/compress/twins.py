"""tf_keras layers made of the rules that custom layers carry.

A twin has the name and the configuration of its original, no weights, and the same operations, so that it converts to
the same LiteRT. The classes are made when first asked for: what they derive from is an optional dependency.
"""

import functools
from typing import Any

from toolkit.lazy import keras


def twin_layers() -> dict[str, type]:
    """List the twin classes of all registered custom layers by name, as ``custom_objects`` of tf_keras takes them."""
    import toolkit.layers  # noqa: F401  (registers its own)

    registered = keras.saving.get_custom_objects().values()
    return {cls.__name__: twin_class(cls) for cls in registered if hasattr(cls, "in_tensorflow")}


@functools.cache
def twin_class(original: Any) -> type:
    """Make the tf_keras class that computes by ``in_tensorflow`` of a custom layer's class."""
    import tf_keras

    class Twin(tf_keras.layers.Layer):
        keeps_range = original.keeps_range

        def __init__(self, name: Any = None, trainable: bool = True, dtype: Any = None, **options: Any) -> None:
            super().__init__(name=name, trainable=trainable, dtype=dtype)
            self._options = options
            self._compute = original(**options).in_tensorflow

        def call(self, inputs: Any) -> Any:
            return self._compute(inputs)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), **self._options}

    Twin.__name__ = Twin.__qualname__ = original.__name__
    return Twin
