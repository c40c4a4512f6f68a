"""From a name to a ready network: a builder joined with its head and its weights."""

from toolkit.factory.create import create_model, load_weights, locate_weights, preprocessing_of
from toolkit.factory.foreign import KINDS, is_network_file, open_network, read_preprocessing
from toolkit.factory.keras_applications import is_application, open_application, require_application
from toolkit.factory.labels import find_labels, read_labels
from toolkit.factory.licence import licence_of
from toolkit.factory.save import save_network, save_weights

__all__ = [
    "KINDS",
    "create_model",
    "find_labels",
    "is_application",
    "is_network_file",
    "licence_of",
    "load_weights",
    "locate_weights",
    "open_application",
    "open_network",
    "preprocessing_of",
    "read_labels",
    "read_preprocessing",
    "require_application",
    "save_network",
    "save_weights",
]
