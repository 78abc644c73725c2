"""Closing the last descriptors of unlinked files, with which the host frees them: that may wait for its journal."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Final

import trio

from umlfs.lifetime import Tasks

WAITING_MAX: Final = 64
"""Descriptors that wait to be closed; the next one is closed at once, so that their number stays bounded."""


class Closer:
    """Closes descriptors in a thread, one after the other, while `tasks` run; else at once."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._waiting: deque[int] = deque()
        self._idle = trio.Event()
        self._idle.set()

    def close(self, fd: int) -> None:
        """Close `fd` soon. Returns at once, unless too many are waiting or nothing runs."""
        if len(self._waiting) >= WAITING_MAX or not self._tasks.alive:
            os.close(fd)
            return
        self._waiting.append(fd)
        if self._idle.is_set():
            self._idle = trio.Event()
            self._tasks.start(self._run)

    async def drain(self) -> None:
        """Wait until all are closed."""
        await self._idle.wait()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await trio.to_thread.run_sync(self._close_all)
        finally:
            self._close_all()  # it may have been cancelled
            self._idle.set()

    def _close_all(self) -> None:
        while self._waiting:
            with contextlib.suppress(IndexError, OSError):
                os.close(self._waiting.popleft())
