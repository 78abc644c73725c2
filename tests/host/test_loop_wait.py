"""Waiting without a turn of the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import trio

from umlfs.host.loop_wait import LoopWait, Outcome


@pytest.fixture
def kick() -> Iterator[int]:
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


def later(kick: int) -> None:
    time.sleep(0.05)
    os.eventfd_write(kick, 1)


async def test_ready_at_once_later_and_never(kick: int) -> None:
    wait = LoopWait()
    assert wait.wait(kick, 1e-3) is Outcome.TIMEOUT
    os.eventfd_write(kick, 1)
    assert wait.wait(kick, 60) is Outcome.READY
    os.eventfd_read(kick)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, later, kick)
        await trio.sleep(0.01)
        while (outcome := wait.wait(kick, 60)) is Outcome.OTHERS:
            await trio.lowlevel.checkpoint()
        assert outcome is Outcome.READY


async def test_others_come_first(kick: int) -> None:
    """A task that can run, one whose descriptor is ready, and one whose time comes."""
    wait = LoopWait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        os.eventfd_write(kick, 1)
        assert wait.wait(kick, 60) is Outcome.OTHERS
        os.eventfd_read(kick)
    other = os.eventfd(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, other)
        await trio.sleep(0.001)
        assert wait.wait(kick, 1e-3) is Outcome.TIMEOUT
        os.eventfd_write(other, 1)
        assert wait.wait(kick, 60) is Outcome.OTHERS
    os.close(other)
    with trio.move_on_after(0.01) as scope:
        while True:
            assert wait.wait(kick, 60) is not Outcome.READY
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_a_loop_that_is_not_as_we_know_it(kick: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umlfs.host.loop_wait._runner", lambda: None)
    os.eventfd_write(kick, 1)
    assert LoopWait().wait(kick, 60) is Outcome.OTHERS
