"""toolkit: from a folder of pictures to a served, quantized classifier, with the classic convolutional networks.

Importing this package imports no framework; names below load what they need when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from toolkit.catalogue import list_models, model_info
    from toolkit.client import AsyncClient, Client
    from toolkit.factory import create_model, load_weights, preprocessing_of, save_weights
    from toolkit.inference import Predictor

_HOME = {
    "AsyncClient": "toolkit.client",
    "Client": "toolkit.client",
    "create_model": "toolkit.factory",
    "load_weights": "toolkit.factory",
    "preprocessing_of": "toolkit.factory",
    "save_weights": "toolkit.factory",
    "Predictor": "toolkit.inference",
    "list_models": "toolkit.catalogue",
    "model_info": "toolkit.catalogue",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Predictor",
    "__version__",
    "create_model",
    "list_models",
    "load_weights",
    "model_info",
    "preprocessing_of",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    try:
        return importlib.import_module(f"toolkit.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"toolkit.{name}":
            raise AttributeError(f"module 'toolkit' has no attribute {name!r}") from None
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
