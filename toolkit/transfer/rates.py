"""AdamW with a learning rate of its own for every stage."""

from typing import Any

from toolkit.lazy import keras
from toolkit.transfer.freeze import stage_of


@keras.saving.register_keras_serializable(package="toolkit")
class StageRates(keras.optimizers.AdamW):
    """Discriminative learning rates: an early stage, whose features are general, moves less than a late one.

    Howard and Ruder, *Universal Language Model Fine-tuning* (ACL 2018), section 3.2, who divide the rate by 2.6 from
    layer to layer. Scaling gradients would not do it: Adam divides their scale out again.

    Args:
        factors: on the learning rate, by stage; 1 for stages not named.
        **kwargs: of ``keras.optimizers.AdamW``.
    """

    def __init__(self, factors: dict[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = dict(factors)

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        stages = [stage_of(variable.path.split("/")[-2]) for variable in variables]
        self._variable_factors = tuple(self.factors.get(stage, 1.0) for stage in stages)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # The look-up that Keras' guide to optimizers of one's own shows: here TensorFlow hands in its own variables.
        factor = self._variable_factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors}


def stage_factors(stages: tuple[str, ...], decay: float) -> dict[str, float]:
    """1 for the last stage, and ``decay`` times as much for each one before.

    >>> stage_factors(("stage3", "stage4", "head"), 0.5)
    {'stage3': 0.25, 'stage4': 0.5, 'head': 1.0}
    """
    return {stage: decay ** (len(stages) - 1 - index) for index, stage in enumerate(stages)}
