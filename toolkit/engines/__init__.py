"""Runtimes behind one small interface: pixels in, probabilities out."""

from toolkit.engines.runtimes import ENGINES, FLOAT_ENGINES, Engine, available_engines, open_engine

__all__ = ["ENGINES", "FLOAT_ENGINES", "Engine", "available_engines", "open_engine"]
