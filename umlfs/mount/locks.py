"""Requests of a mount about locks: those of its users are one with those of the filesystem's others.

pyfuse3 has no such requests, so they come from `umlfs.mount.libfuse`, and are answered by tasks of their own beside
pyfuse3's.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from umlfs.filesystem import LOCK_END, Lock
from umlfs.fuse.locks import LockWaits
from umlfs.mount import libfuse
from umlfs.mount.adapter import Adapter, File, errno_of
from umlfs.mount.libfuse import Flock, Operation, Request

log = logging.getLogger(__name__)

_KINDS: Final = {fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}


def _lock(flock: Flock) -> Lock:
    end = flock.start + flock.length - 1 if flock.length else LOCK_END
    return Lock(flock.kind, flock.start, end)


def _flock(lock: Lock | None) -> Flock:
    if lock is None:
        return Flock(kind=fcntl.F_UNLCK)
    length = 0 if lock.end >= LOCK_END else lock.end - lock.start + 1
    return Flock(kind=lock.kind, whence=os.SEEK_SET, start=lock.start, length=length)


class LockOperations:
    """Those of one mount."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._waits = LockWaits()
        self._numbers = itertools.count()
        self._ended = False
        self.nursery: trio.Nursery | None = None
        """Where requests are answered."""

    def for_libfuse(self) -> tuple[dict[str, Operation], dict[str, libfuse.Wrapper]]:
        """What `libfuse.added` takes: nothing, where the kernel is to keep the locks of the mount's users itself."""
        if not self._adapter.fs.traits.locks:
            return {}, {}
        operations: dict[str, Operation] = {"getlk": self._getlk, "setlk": self._setlk, "flock": self._flock}
        return operations, {
            "open": self._around_open,
            "create": self._around_create,
            "flush": self._around_flush,
        }

    def end(self) -> None:
        """Nobody is to wait any longer: ENOLCK, as when a server of NFS has gone."""
        self._ended = True
        self._waits.interrupt_all()

    # Requests ---------------------------------------------------------------------------------

    def _getlk(self, pointer: int, ino: int, info: Any, flock: Any) -> None:
        owner, lock = info.contents.lock_owner, _lock(flock.contents)

        async def find(request: Request, file: File) -> None:
            request.answer_lock(_flock(await self._adapter.fs.getlk(ino, file.handle, owner, lock)))

        self._start(pointer, info.contents.fh, find)

    def _setlk(self, pointer: int, ino: int, info: Any, flock: Any, wait: int) -> None:
        owner, lock = info.contents.lock_owner, _lock(flock.contents)

        async def take(request: Request, file: File) -> None:
            await self._adapter.fs.setlk(ino, file.handle, owner, lock, bool(wait))
            request.fail(0)

        self._start(pointer, info.contents.fh, take)

    def _flock(self, pointer: int, ino: int, info: Any, operation: int) -> None:
        owner = info.contents.lock_owner
        kind, wait = _KINDS[operation & ~fcntl.LOCK_NB], not operation & fcntl.LOCK_NB

        async def take(request: Request, file: File) -> None:
            file.flock_owner = owner
            await self._adapter.fs.flock(ino, file.handle, owner, kind, wait)
            request.fail(0)

        self._start(pointer, info.contents.fh, take)

    def _start(self, pointer: int, fh: int, answer: Callable[[Request, File], Awaitable[None]]) -> None:
        request = Request(pointer)
        file = self._adapter.open_files.get(fh)
        if file is None or self.nursery is None:
            request.fail(errno.EBADF)
        elif self._ended:
            request.fail(errno.ENOLCK)
        else:
            self.nursery.start_soon(self._answer, request, file, answer)

    async def _answer(self, request: Request, file: File, answer: Callable[[Request, File], Awaitable[None]]) -> None:
        number = next(self._numbers)
        self._adapter.requests += 1
        self._adapter.under_way += 1
        try:
            with self._waits.waiting(number, request.pid):
                request.on_interrupt(lambda: self._waits.interrupt(number))
                await answer(request, file)
        except OSError as error:
            request.fail(errno.ENOLCK if self._ended else errno_of(error))
        except Exception:
            log.exception("a request for a lock failed")
            request.fail(errno.EIO)
        except BaseException:
            request.fail(errno.ENOLCK)
            raise
        finally:
            self._adapter.under_way -= 1

    # Closing ----------------------------------------------------------------------------------

    def _around_open(self, inner: Operation) -> Operation:
        """A file that is only read need not be told of when it is closed: what was locked by it ends with it."""

        def opening(pointer: int, ino: int, info: Any) -> None:
            contents = info.contents
            if contents.flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY:
                contents.bits |= libfuse.NOFLUSH
            inner(pointer, ino, info)

        return opening

    def _around_create(self, inner: Operation) -> Operation:
        """Nor one that is new."""

        def creating(pointer: int, parent: int, name: int, mode: int, info: Any) -> None:
            contents = info.contents
            if contents.flags & os.O_EXCL:
                contents.bits |= libfuse.NOFLUSH
            inner(pointer, parent, name, mode, info)

        return creating

    def _around_flush(self, inner: Operation) -> Operation:
        """Whoever closes any descriptor of a file gives back all POSIX locks of it."""

        def flushing(pointer: int, ino: int, info: Any) -> None:
            file = self._adapter.open_files.get(info.contents.fh)
            if file is not None:
                self._adapter.fs.unlock(ino, file.handle, info.contents.lock_owner)
            inner(pointer, ino, info)

        return flushing
