"""How much of a pretrained network to train: the more pictures there are, the fewer layers stay frozen."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.errors import UserError, unknown_name

#: Training pictures from which on the last stage, the last half of the stages, and the whole network train as well.
LAST_STAGE_FROM = 2_000
HALF_FROM = 20_000
ALL_FROM = 200_000


@dataclass(frozen=True)
class FreezePlan:
    """What stays frozen and why.

    Attributes:
        unfreeze_from: the first stage that trains, once the head has been fitted; None where only the head does.
        reason: for people.
    """

    unfreeze_from: str | None
    reason: str

    def __str__(self) -> str:
        trained = f"the stages from {self.unfreeze_from} on" if self.unfreeze_from else "only the classifier"
        return f"{trained} will train ({self.reason})"


def plan_freezing(stages: Sequence[str], num_train: int, wish: str = "auto") -> FreezePlan:
    """Which stages to train.

    A few hundred pictures cannot move millions of weights without fitting their own noise, and the features of late
    stages are the most particular to what was learned before (Yosinski et al., NIPS 2014, figure 2), so stages are
    freed from the last one back.

    Args:
        stages: of the network, input to output, the classifier's last.
        num_train: training pictures.
        wish: ``"auto"`` to follow their number, ``"none"`` to train the classifier only, or the first stage to train.

    Raises:
        UserError: no such stage.

    >>> plan_freezing(("stem", "stage1", "stage2", "head"), 5_000).unfreeze_from
    'stage2'
    """
    *body, _ = stages
    if wish == "none":
        return FreezePlan(None, "as asked")
    if wish != "auto":
        if wish not in stages:
            raise UserError(unknown_name("stage", wish, ["auto", "none", *stages]))
        return FreezePlan(wish, "as asked")
    if not body or num_train < LAST_STAGE_FROM:
        return FreezePlan(None, f"{num_train:,} training pictures, fewer than {LAST_STAGE_FROM:,}")
    if num_train < HALF_FROM:
        return FreezePlan(body[-1], f"{num_train:,} training pictures, {LAST_STAGE_FROM:,} to {HALF_FROM:,}")
    if num_train < ALL_FROM:
        return FreezePlan(body[len(body) // 2], f"{num_train:,} training pictures, {HALF_FROM:,} to {ALL_FROM:,}")
    return FreezePlan(body[0], f"{num_train:,} training pictures, {ALL_FROM:,} or more")
