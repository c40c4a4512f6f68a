"""From a name to a ready network: a builder joined with its head and its weights."""

from toolkit.factory.create import create_model, load_weights, locate_weights, preprocessing_of
from toolkit.factory.save import save_weights

__all__ = ["create_model", "load_weights", "locate_weights", "preprocessing_of", "save_weights"]
