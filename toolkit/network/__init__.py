"""Keras networks of anyone: loaded, made flat, cut to logits, walked, cast to float32, and told from one another."""

from toolkit.network.blocks import bottlenecks, origin, shrinks
from toolkit.network.classifier import (
    ANSWERS,
    NOVELTY,
    Head,
    answers_novelty,
    as_classifier,
    head_of,
    probabilities_of,
    require_labels,
    split_rescaling,
    with_new_head,
)
from toolkit.network.flatten import flatten
from toolkit.network.graph import (
    architecture_digest,
    as_float32,
    essence,
    feature_tensor,
    inputs_of,
    load_network,
    outputs_of,
    producers_of,
    sources,
    weights_digest,
)
from toolkit.network.half import in_half, rounded_to_half, save_in_half
from toolkit.network.stages import name_stages, stage_of

__all__ = [
    "ANSWERS",
    "NOVELTY",
    "Head",
    "answers_novelty",
    "architecture_digest",
    "as_classifier",
    "as_float32",
    "bottlenecks",
    "essence",
    "feature_tensor",
    "flatten",
    "head_of",
    "in_half",
    "inputs_of",
    "load_network",
    "name_stages",
    "origin",
    "outputs_of",
    "probabilities_of",
    "producers_of",
    "require_labels",
    "rounded_to_half",
    "save_in_half",
    "shrinks",
    "sources",
    "split_rescaling",
    "stage_of",
    "weights_digest",
    "with_new_head",
]
