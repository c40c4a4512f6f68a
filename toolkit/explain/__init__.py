"""Explanations: where in a picture the evidence for a class lies, what the stages saw, and what part is enough."""

from toolkit.explain.crops import Region
from toolkit.explain.explainer import METHODS, Explainer, Explanation, HeatMap
from toolkit.explain.faithfulness import Curves
from toolkit.explain.opening import open_explainer
from toolkit.explain.window import Box

__all__ = ["METHODS", "Box", "Curves", "Explainer", "Explanation", "HeatMap", "Region", "open_explainer"]
