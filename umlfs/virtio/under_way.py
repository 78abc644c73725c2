"""Requests under way on something that is to be closed."""

from __future__ import annotations

from types import TracebackType

import trio


class UnderWay:
    """A context for each request, and a wait for the last of them."""

    def __init__(self) -> None:
        self._count = 0
        self._idle: trio.Event | None = None
        """Set once there are none; made by who waits for that."""

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count and self._idle is not None:
            self._idle.set()

    async def end(self) -> None:
        """Wait for the last one. The caller sees to it that no more come."""
        if self._count:
            self._idle = trio.Event()
            await self._idle.wait()
