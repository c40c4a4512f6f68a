"""A trained network turned into a bundle, which is written only if its engines agree."""

from toolkit.export.bundle import BundleOptions, ParityError, draft_bundle, export_bundle
from toolkit.export.parity import REFERENCE, AccuracyBudget

__all__ = ["REFERENCE", "AccuracyBudget", "BundleOptions", "ParityError", "draft_bundle", "export_bundle"]
