"""Options and phases of training unfrozen stages; the training itself is tested with the whole of fine-tuning."""

import pytest

from toolkit.errors import UserError
from toolkit.transfer import UnfrozenOptions
from toolkit.transfer.unfrozen import _phases


def test_gradual_phases_share_the_epochs():
    assert _phases(["stage4", "stage3", "stage2"], 5) == [("stage4", 1), ("stage3", 2), ("stage2", 2)]
    assert _phases(["stage4", "stage3", "stage2"], 2) == [("stage3", 1), ("stage2", 1)]


@pytest.mark.parametrize("options", [{"epochs": 0}, {"learning_rate": 0.0}, {"stage_decay": 1.5}])
def test_impossible_unfrozen_options(options):
    with pytest.raises(UserError, match="epochs and batch size must be at least 1"):
        UnfrozenOptions(**options)
