"""Waiting a moment for one descriptor of a task's own, without a turn of trio's loop.

A turn costs some 50 µs: a guest that works through files would pay it for each request. So the task that has nothing to
do, while no other has either, waits for its descriptor itself, and for the descriptor by which trio would hear of
anything else. Where trio is not as we know it, or has more to do, nothing is waited for.
"""

from __future__ import annotations

import ctypes
import enum
import select
import struct
from typing import Any, Final

_libc = ctypes.CDLL(None)
_POLLED: Final = struct.Struct("=ihhihh")
_TIME: Final = struct.Struct("@ll")


class Outcome(enum.Enum):
    """What ended a wait."""

    READY = enum.auto()
    """The descriptor is readable."""
    OTHERS = enum.auto()
    """Another task has something to do, or may have: let it run, with a checkpoint."""
    TIMEOUT = enum.auto()


class LoopWait:
    """For the loop of the task that makes it."""

    def __init__(self) -> None:
        self._runner = _runner()
        self._polled = ctypes.create_string_buffer(_POLLED.size)
        self._time = ctypes.create_string_buffer(_TIME.size)
        self._addresses = ctypes.addressof(self._polled), ctypes.addressof(self._time)

    def wait(self, descriptor: int, seconds: float) -> Outcome:
        """Wait for `descriptor` to be readable, at most for `seconds`: nothing else is done
        meanwhile. Does not wait while another task has something to do, but for those that trio woke together with the
        caller: whoever was woken lets them run first, with a checkpoint."""
        runner = self._runner
        if runner is None or runner.runq:
            return Outcome.OTHERS
        until = runner.clock.deadline_to_sleep_time(runner.deadlines.next_deadline())
        at_the_end = Outcome.TIMEOUT
        if until < seconds:
            seconds, at_the_end = max(until, 0), Outcome.OTHERS
        _POLLED.pack_into(
            self._polled, 0, descriptor, select.POLLIN, 0, runner.io_manager._epoll.fileno(), select.POLLIN, 0
        )
        _TIME.pack_into(self._time, 0, *divmod(int(seconds * 1e9), 1_000_000_000))
        polled, time = self._addresses
        if _ppoll(polled, 2, time, None) == 0:
            return at_the_end
        _, _, ours, _, _, others = _POLLED.unpack(self._polled)
        return Outcome.READY if ours and not others else Outcome.OTHERS


_ppoll = _libc.ppoll
_ppoll.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)
_ppoll.restype = ctypes.c_int


def _runner() -> Any:
    """What runs trio's tasks in this thread; None if it is not as we know it."""
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        runner: Any = GLOBAL_RUN_CONTEXT.runner
        known = not runner.is_guest and runner.io_manager._epoll.fileno() >= 0
        runner.runq.__len__, runner.deadlines.next_deadline, runner.clock.deadline_to_sleep_time  # noqa: B018
    except (ImportError, AttributeError):
        return None
    return runner if known else None
