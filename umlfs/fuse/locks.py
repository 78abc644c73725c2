"""FUSE requests about locks, and the end of those that wait for one."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from umlfs.filesystem import Filesystem, Lock
from umlfs.fuse.request import Handler
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode


@dataclass(slots=True)
class _Waiting:
    """A request for a lock that somebody else has."""

    pid: int
    scope: trio.CancelScope


class LockWaits:
    """The requests of one device that wait for a lock."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        """By the number of the request."""
        self._begun = trio.Event()

    @contextlib.contextmanager
    def waiting(self, unique: int, pid: int) -> Iterator[None]:
        """A request waits within. EINTR, upon which a kernel starts it again after the signal, if it is interrupted."""
        with trio.CancelScope() as scope:
            self._waiting[unique] = _Waiting(pid, scope)
            self._begun.set()
            try:
                yield
            finally:
                self._waiting.pop(unique, None)
        if scope.cancelled_caught:
            raise OSError(errno.EINTR, "interrupted")

    async def begun(self) -> None:
        """Wait until somebody waits."""
        while not self._waiting:
            self._begun = trio.Event()
            await self._begun.wait()

    @property
    def pids(self) -> set[int]:
        """The processes (or threads) that wait for a lock."""
        return {each.pid for each in self._waiting.values()}

    def interrupt(self, unique: int) -> None:
        """Whoever made that request is to wait no longer; nothing if it does not wait."""
        if (waiting := self._waiting.get(unique)) is not None:
            waiting.scope.cancel()

    def interrupt_all(self) -> None:
        """Nobody is to wait any longer."""
        for each in list(self._waiting.values()):
            each.scope.cancel()

    def interrupt_process(self, pid: int) -> None:
        """A signal has reached that process."""
        for each in list(self._waiting.values()):
            if each.pid == pid:
                each.scope.cancel()


class LockRequests:
    """Those of one session."""

    def __init__(self, filesystem: Filesystem, waits: LockWaits) -> None:
        self._filesystem = filesystem
        self._waits = waits

    def handlers(self) -> dict[int, Handler]:
        return {Opcode.GETLK: self.getlk, Opcode.SETLK: self.setlk, Opcode.SETLKW: self.setlkw}

    async def getlk(self, header: wire.Header, body: bytes) -> bytes:
        handle, owner, lock, _ = wire.lock_in(body)
        return wire.lock_out(await self._filesystem.getlk(header.node, handle, owner, lock))

    async def setlk(self, header: wire.Header, body: bytes) -> bytes:
        await self._take(header, *wire.lock_in(body), wait=False)
        return b""

    async def setlkw(self, header: wire.Header, body: bytes) -> bytes:
        with self._waits.waiting(header.unique, header.pid):
            await self._take(header, *wire.lock_in(body), wait=True)
        return b""

    async def _take(self, header: wire.Header, handle: int, owner: int, lock: Lock, whole: bool, *, wait: bool) -> None:
        if whole:
            await self._filesystem.flock(header.node, handle, owner, lock.kind, wait)
        else:
            await self._filesystem.setlk(header.node, handle, owner, lock, wait)
