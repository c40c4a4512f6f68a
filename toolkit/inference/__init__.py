"""Bundles put to use: predictions, evaluation, engine comparison."""

from toolkit.inference.compare import benchmark_bundle, verify_bundle, verify_version
from toolkit.inference.evaluate import evaluate_bundle
from toolkit.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor", "benchmark_bundle", "evaluate_bundle", "verify_bundle", "verify_version"]
