"""A picture of any network, as SVG or PNG: one box per block, repeated blocks folded, shapes and shortcuts beside."""

from toolkit.draw.picture import check_path, draw_model

__all__ = ["check_path", "draw_model"]
