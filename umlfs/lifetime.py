"""What a filesystem does beside answering: tasks that live as long as it is served, and whose failures are its own."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVarTuple

import trio

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")


class Tasks:
    """The tasks of one filesystem. None runs outside `running`."""

    def __init__(self, owner: str) -> None:
        """`owner` is what the filesystem is called in the log."""
        self.owner = owner
        self.failure: OSError | None = None
        """Why the filesystem can be relied on no more: a task of it failed. EIO."""
        self._nursery: trio.Nursery | None = None

    @property
    def alive(self) -> bool:
        """Tasks can be started."""
        return self._nursery is not None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tasks run within; at the end all that are left are cancelled and waited for. An exception from within comes
        out as it is. Within another `running` of the same it adds nothing."""
        if self._nursery is not None:
            yield
            return
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    yield
                finally:
                    nursery, self._nursery = self._nursery, None
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # No task raises, so this is what came from within, wrapped by the nursery.
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from None

    def start(self, task: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> bool:
        """Run `task` beside the filesystem's answers; False if it is not served. A failure of it becomes `failure`."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(self._run, task, args)
        return True

    async def _run(self, task: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        try:
            await task(*args)
        except Exception as error:
            log.exception("%s: answers nothing any more: a task failed", self.owner)
            self.failure = self.failure or OSError(errno.EIO, f"a task of the filesystem failed: {error}")
