"""Bundles put to use: predictions, evaluation, engine comparison."""

from toolkit.inference.compare import benchmark_bundle, verify_bundle
from toolkit.inference.ensemble import load_classifier
from toolkit.inference.evaluate import evaluate_bundle
from toolkit.inference.predictor import PictureClassifier, Prediction, Predictor

__all__ = [
    "PictureClassifier",
    "Prediction",
    "Predictor",
    "benchmark_bundle",
    "evaluate_bundle",
    "load_classifier",
    "verify_bundle",
]
