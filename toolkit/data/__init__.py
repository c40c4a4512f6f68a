"""From files on disk to pixels: scan, split, decode, preprocess, pipeline, bundled samples."""

from toolkit.data.feed.handed import Pipeline, pipeline
from toolkit.data.feed.split import Split, class_weights, split_folder, teaching_split
from toolkit.data.pixels.decode import ImageError, decode_pixels, normalize
from toolkit.data.scan.folder import ImageFolder, scan_arrays, scan_folder
from toolkit.data.sources.source import Source

__all__ = [
    "ImageError",
    "ImageFolder",
    "Pipeline",
    "Source",
    "Split",
    "class_weights",
    "decode_pixels",
    "normalize",
    "pipeline",
    "scan_arrays",
    "scan_folder",
    "split_folder",
    "teaching_split",
]
