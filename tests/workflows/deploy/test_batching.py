"""The choice of a batch's size from times."""

import pytest

from toolkit.workflows.deploy.batching import MAX_WAIT_MS, choose_batching


@pytest.mark.parametrize(
    ("milliseconds", "size", "wait", "queue"),
    [
        ({1: 10, 2: 20, 4: 40}, 1, 0, 100),  # batches gain nothing
        ({1: 10, 2: 12, 4: 20, 8: 39}, 4, 5, 50),  # eight at once are hardly faster than four
        ({1: 10, 2: 12, 4: 20, 8: 30}, 8, 5, 33),
        ({1: 400, 8: 800}, 8, MAX_WAIT_MS, 1),
        ({1: 5000, 2: 6000}, 2, MAX_WAIT_MS, 1),  # slower than what waits should be: one batch may
    ],
)
def test_the_smallest_batch_that_is_about_as_fast_as_the_fastest(milliseconds, size, wait, queue):
    found = choose_batching(milliseconds)
    assert (found.size, found.wait_ms, found.queue) == (size, wait, queue)
    assert found.threads >= 1
