"""A trained network turned into a bundle, which is written only if its engines agree."""

from toolkit.export.bundle import ParityError, export_bundle
from toolkit.export.parity import AccuracyBudget

__all__ = ["AccuracyBudget", "ParityError", "export_bundle"]
