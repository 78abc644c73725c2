"""When a queue's leader looks for itself."""

from __future__ import annotations

import pytest

from tests.compiled import compiled
from umlfs.virtio.polling import POLL_SECONDS, Polling
from umlfs.virtio.rings import VERSION


@pytest.fixture(params=["reference", "compiled"])
def polling(request: pytest.FixtureRequest) -> Polling:
    """Everything here holds of both."""
    if request.param == "reference":
        return Polling()
    made: Polling = compiled("umlfs.virtio._virtqueue", VERSION).Polling()
    return made


def attempts(polling: Polling, turns: int) -> int:
    """How many of these turns begin with looking, which finds nothing."""
    made = 0
    for _ in range(turns):
        if polling.seconds():
            made += 1
            polling.missed()
    return made


def test_at_first_it_looks(polling: Polling) -> None:
    assert polling.seconds() == POLL_SECONDS


def test_the_end_of_a_burst_costs_nothing(polling: Polling) -> None:
    for _ in range(10):
        assert polling.seconds()
        polling.missed()
        assert polling.seconds()
        polling.found()


def test_in_vain_it_looks_ever_more_rarely(polling: Polling) -> None:
    assert attempts(polling, 1 + 1 + 2 + 4 + 8) == 5
    attempts(polling, 1000)
    assert attempts(polling, 1600) == 100


def test_one_request_found_makes_up_for_all(polling: Polling) -> None:
    attempts(polling, 1000)
    while not polling.seconds():
        pass
    polling.found()
    assert attempts(polling, 2) == 2
