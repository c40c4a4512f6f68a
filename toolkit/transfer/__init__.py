"""Fine-tuning: freeze the early stages, cache what they answer on disk, train what is left."""

from toolkit.transfer.cache import FeatureCache, FeatureContext
from toolkit.transfer.deepen import deepen
from toolkit.transfer.features import Extraction, FeatureExtractor, Features, extract_features
from toolkit.transfer.finetune import FinetuneOptions, FinetuneResult, finetune
from toolkit.transfer.freeze import FreezeReport, freeze, stages_of, unfreeze
from toolkit.transfer.head import Head, HeadOptions, fit_head
from toolkit.transfer.network import Network
from toolkit.transfer.policy import FreezePlan, plan_freezing
from toolkit.transfer.unfrozen import RestOptions
from toolkit.transfer.views import Views

__all__ = [
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
    "Network",
    "RestOptions",
    "Views",
    "deepen",
    "extract_features",
    "finetune",
    "fit_head",
    "freeze",
    "plan_freezing",
    "stages_of",
    "unfreeze",
]
