"""Training: a typed config, recipes that return one, and a loop that can be killed and resumed."""

from toolkit.training.config import TrainConfig, apply_overrides
from toolkit.training.recipes import list_recipes, recipe

__all__ = ["TrainConfig", "apply_overrides", "list_recipes", "recipe"]
