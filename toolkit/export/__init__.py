"""A trained network turned into a bundle, which is written only if its engines agree."""

from toolkit.export.bundle import ParityError, export_bundle

__all__ = ["ParityError", "export_bundle"]
