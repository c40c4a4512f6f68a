"""Explanations: where in a picture the evidence for a class lies, what the stages saw, and what part is enough."""

from toolkit.explain.explainer import METHODS, Explainer, Explanation, HeatMap
from toolkit.explain.opening import open_explainer
from toolkit.explain.perturbation import Curves
from toolkit.explain.regions import Box, Region

__all__ = ["METHODS", "Box", "Curves", "Explainer", "Explanation", "HeatMap", "Region", "open_explainer"]
