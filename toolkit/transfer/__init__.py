"""Fine-tuning: freeze the early stages, cache what they answer on disk, train what is left."""

from toolkit.transfer.cache import FeatureCache
from toolkit.transfer.deepen import deepen
from toolkit.transfer.features import extract_features
from toolkit.transfer.freeze import FreezeReport, freeze, stages_of, unfreeze
from toolkit.transfer.head import LinearHead, fit_head

__all__ = [
    "FeatureCache",
    "FreezeReport",
    "LinearHead",
    "deepen",
    "extract_features",
    "fit_head",
    "freeze",
    "stages_of",
    "unfreeze",
]
