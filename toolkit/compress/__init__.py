"""Smaller and faster forms of a trained network."""

from toolkit.compress.bridge import from_tf_keras, to_tf_keras
from toolkit.compress.job import Retraining
from toolkit.compress.litert import OperatorReport, operator_report
from toolkit.compress.quantize import METHODS, Method, quantize
from toolkit.compress.report import compression_report, report_page
from toolkit.compress.retrain import PATTERNS, Clustering, Pruning, cluster, prune, quantize_aware_train
from toolkit.compress.sensitivity import float_layers, layer_sensitivity, range_report

__all__ = [
    "METHODS",
    "PATTERNS",
    "Clustering",
    "Method",
    "OperatorReport",
    "Pruning",
    "Retraining",
    "cluster",
    "compression_report",
    "float_layers",
    "from_tf_keras",
    "layer_sensitivity",
    "operator_report",
    "prune",
    "quantize",
    "quantize_aware_train",
    "range_report",
    "report_page",
    "to_tf_keras",
]
