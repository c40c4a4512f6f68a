"""The server's options, before there is a server."""

import pytest

from toolkit.errors import UserError
from toolkit.serving import ServerOptions


@pytest.mark.parametrize(
    ("workers", "max_queue", "places"),
    [(1, None, 32), (2, None, 24), (8, None, 24), (1, 4, 4), (2, 4, 2), (2, 5, 3), (8, 5, 1)],
)
def test_the_places_of_a_queue_are_shared_out_among_the_workers(workers, max_queue, places):
    assert ServerOptions(workers=workers, max_queue=max_queue).places == places


def test_a_queue_without_places_is_refused():
    with pytest.raises(UserError, match="max_queue must be at least 1, got 0"):
        ServerOptions(max_queue=0)
