"""Fine-tuning: freeze the early stages, cache what they answer on disk, train what is left."""

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.transfer.cache import FeatureCache, FeatureContext
from toolkit.transfer.deepen import deepen
from toolkit.transfer.features import Extraction, FeatureExtractor, Features, extract_features
from toolkit.transfer.finetune import FinetuneOptions, FinetuneResult, finetune
from toolkit.transfer.freeze import FreezePlan, FreezeReport, freeze, plan_freezing, stages_of, unfreeze
from toolkit.transfer.heads.head import Head, HeadOptions
from toolkit.transfer.unfrozen.training import UnfrozenOptions

__all__ = [
    "AugmentedViews",
    "Extraction",
    "FeatureCache",
    "FeatureContext",
    "FeatureExtractor",
    "Features",
    "FinetuneOptions",
    "FinetuneResult",
    "FreezePlan",
    "FreezeReport",
    "Head",
    "HeadOptions",
    "UnfrozenOptions",
    "deepen",
    "extract_features",
    "finetune",
    "freeze",
    "plan_freezing",
    "stages_of",
    "unfreeze",
]
