"""From a name to a ready network: a builder joined with its head and its weights."""

from toolkit.factory.create import create_model, load_weights, locate_weights, preprocessing_of
from toolkit.factory.foreign import is_network_file, open_network, read_preprocessing
from toolkit.factory.save import save_weights

__all__ = [
    "create_model",
    "is_network_file",
    "load_weights",
    "locate_weights",
    "open_network",
    "preprocessing_of",
    "read_preprocessing",
    "save_weights",
]
