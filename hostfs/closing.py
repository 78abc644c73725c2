"""Closing the last descriptors of unlinked files, with which the host frees them: that may wait for its journal."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Final

import trio

WAITING_MAX: Final = 64
"""Descriptors that wait to be closed; the next one is closed at once, so that their number stays bounded."""


class Closer:
    """Closes descriptors in a thread, one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._idle = trio.Event()
        self._idle.set()

    def close(self, fd: int) -> None:
        """Close `fd` soon. To be called from within trio; returns at once, unless too many are waiting."""
        if len(self._waiting) >= WAITING_MAX:
            os.close(fd)
            return
        self._waiting.append(fd)
        if self._idle.is_set():
            self._idle = trio.Event()
            trio.lowlevel.spawn_system_task(self._run)

    async def drain(self) -> None:
        """Wait until all are closed."""
        await self._idle.wait()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await trio.to_thread.run_sync(self._close_all)
        finally:
            self._close_all()  # trio itself may be ending
            self._idle.set()

    def _close_all(self) -> None:
        while self._waiting:
            with contextlib.suppress(IndexError, OSError):
                os.close(self._waiting.popleft())
