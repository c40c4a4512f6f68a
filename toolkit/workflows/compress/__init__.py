"""Compression of a bundle: its network in a smaller form becomes the bundle's next version."""

from toolkit.workflows.compress.journey import compress_bundle
from toolkit.workflows.compress.options import COMPRESSION_METHODS, CompressionOptions

__all__ = ["COMPRESSION_METHODS", "CompressionOptions", "compress_bundle"]
