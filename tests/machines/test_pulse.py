"""A kernel that is asked whether it still lives: by a clock that jumps, and answers that the test gives."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.machines.pulse import PAUSE_SECONDS, Pulse
from runtime.mconsole.wire import NoticeKind, Reply
from umlfs.errors import UmlError


class Kernel:
    """One that answers while `well` is set."""

    def __init__(self) -> None:
        self.well = trio.Event()
        self.well.set()
        self.asked = self.waiting = self.most = 0
        self.asleep = self.gone = False
        self.told: list[NoticeKind] = []

    async def request(self, text: str, timeout: float) -> Reply:
        assert (text, timeout) == ("version", math.inf)
        self.asked += 1
        if self.gone:
            raise UmlError("no such socket")
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.well.wait()
        self.waiting -= 1
        return Reply(0, "Linux")

    def pulse(self, seconds: float = 60) -> Pulse:
        return Pulse(
            self.request, seconds=seconds, asleep=lambda: self.asleep, tell=lambda kind, _: self.told.append(kind)
        )


async def test_a_kernel_that_hangs_and_recovers(mock_clock: MockClock) -> None:
    kernel = Kernel()
    pulse = kernel.pulse()
    async with pulse.felt():
        await pass_time(mock_clock, 3 * PAUSE_SECONDS)
        assert (kernel.asked, pulse.hung, kernel.told) == (3, False, [])
        kernel.well = trio.Event()
        await pass_time(mock_clock, PAUSE_SECONDS + 59)
        assert not pulse.hung
        await pass_time(mock_clock, 600)
        assert (kernel.most, pulse.hung, kernel.told) == (1, True, [NoticeKind.HANG])
        kernel.well.set()
        await pass_time(mock_clock, 1)
        assert (pulse.hung, kernel.told) == (False, [NoticeKind.HANG, NoticeKind.RECOVERED])
        await pass_time(mock_clock, 10 * PAUSE_SECONDS)
        assert kernel.told == [NoticeKind.HANG, NoticeKind.RECOVERED]


@pytest.mark.parametrize(("asleep", "seconds"), [(True, 60), (False, 0)])
async def test_one_that_is_not_asked(mock_clock: MockClock, asleep: bool, seconds: float) -> None:
    kernel = Kernel()
    kernel.asleep = asleep
    async with kernel.pulse(seconds).felt():
        await pass_time(mock_clock, 600)
    assert kernel.asked == 0


async def test_one_that_is_gone(mock_clock: MockClock) -> None:
    kernel = Kernel()
    kernel.gone = True
    async with kernel.pulse().felt():
        await pass_time(mock_clock, 600)
    assert kernel.asked
    assert not kernel.told


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let whole seconds pass, one by one, and all be done that is to be done in each."""
    await wait_all_tasks_blocked()
    for _ in range(int(seconds)):
        clock.jump(1)
        await wait_all_tasks_blocked()
