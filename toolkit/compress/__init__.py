"""Smaller and faster forms of a trained network."""

from toolkit.compress.quantize import METHODS, Method, quantize

__all__ = ["METHODS", "Method", "quantize"]
