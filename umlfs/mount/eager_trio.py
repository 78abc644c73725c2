"""A reader of requests that takes the next one at once if it is there.

`EagerTrio` is trio with two changes, for `umlfs.mount.pyfuse3_internals` to put in the place of trio. The device
is polled before trio waits for it: a process that goes through a tree sends its next request within
microseconds of an answer. And the lock around that is not handed on fairly, since the reader that has the lock
needs no other task to be run. The loop is held for `TURN_SECONDS` at most.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Final

import trio

TURN_SECONDS: Final = 1e-3
"""How long requests may be read without other tasks getting their turn."""
PATIENCE_SECONDS: Final = 50e-6
"""How long a turn waits for a request while nothing else is under way."""
LIVELY_SECONDS: Final = 200e-6
"""Patience is for a consumer whose last request came as soon as this after we began to wait."""
_SELECT_MAX: Final = 1024

_clock = time.perf_counter


class _Lock:
    """A lock that whoever runs may take before those who were woken for it."""

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        self._waiting.unpark()


class _Waiting:
    """`trio.lowlevel` with another `wait_readable`."""

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._poll = select.poll()
        self._polled = -1
        self._turn_end = 0.0
        self._lively = False

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        if _clock() < self._turn_end and self._is_readable(fd):
            return
        start = _clock()
        await trio.lowlevel.wait_readable(fd)
        now = _clock()
        self._lively = now - start < LIVELY_SECONDS
        self._turn_end = now + TURN_SECONDS

    def _is_readable(self, fd: int) -> bool:
        if fd != self._polled:
            self._poll.register(fd, select.POLLIN)
            self._polled = fd
        if self._poll.poll(0):
            return True
        if not self._lively or self._is_busy() or fd >= _SELECT_MAX:
            return False
        return bool(select.select([fd], [], [], PATIENCE_SECONDS)[0])


class EagerTrio:
    """What pyfuse3 is to take for trio. `is_busy` tells whether requests are under way that wait for something."""

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self.Lock = _Lock
        self.lowlevel = _Waiting(is_busy)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)
