"""Options and phases of training unfrozen stages; the training itself is tested with the whole of fine-tuning."""

import pytest

from toolkit.errors import UserError
from toolkit.transfer import UnfrozenOptions
from toolkit.transfer.unfrozen.training import _phases


def test_gradual_phases_share_the_epochs():
    assert _phases([4, 3, 2], 5) == [(4, 1), (3, 2), (2, 2)]
    assert _phases([4, 3, 2], 2) == [(3, 1), (2, 1)]


@pytest.mark.parametrize("options", [{"epochs": 0}, {"learning_rate": 0.0}, {"stage_decay": 1.5}])
def test_impossible_unfrozen_options(options):
    with pytest.raises(UserError, match="epochs and batch size must be at least 1"):
        UnfrozenOptions(**options)
