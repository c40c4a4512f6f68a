"""Pictures as SVG or PNG: of any network, one box per block, repeated blocks folded; of edge detectors at work."""

from toolkit.draw.filters import draw_filters, filter_layer
from toolkit.draw.picture import check_path, draw_model

__all__ = ["check_path", "draw_filters", "draw_model", "filter_layer"]
