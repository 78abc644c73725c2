"""Requests of a mount about locks: those of its users are one with those of the filesystem's others."""

from __future__ import annotations

import fcntl
import os
from typing import Any, Final

from umlfs.filesystem import LOCK_END, Lock
from umlfs.mount.adapter import Adapter, File
from umlfs.mount.libfuse import NOFLUSH, Flock, Operation, Request, Wrapper
from umlfs.mount.requests import Requests

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

    def __init__(self, adapter: Adapter, requests: Requests) -> None:
        self._adapter = adapter
        self._requests = requests

    def for_libfuse(self) -> tuple[dict[str, Operation], dict[str, Wrapper]]:
        """What `libfuse.added` takes: nothing, where the kernel is to keep the locks of the mount's users itself."""
        if not self._adapter.fs.traits.locks:
            return {}, {}
        operations: dict[str, Operation] = {"getlk": self._getlk, "setlk": self._setlk, "flock": self._flock}
        return operations, {
            "open": self._around_open,
            "create": self._around_create,
            "flush": self._around_flush,
        }

    # Requests ---------------------------------------------------------------------------------

    def _getlk(self, pointer: int, ino: int, info: Any, flock: Any) -> None:
        owner, lock = info.contents.lock_owner, _lock(flock.contents)

        async def find(request: Request, file: File) -> None:
            request.answer_lock(_flock(await self._adapter.fs.getlk(ino, file.handle, owner, lock)))

        self._requests.start(pointer, info.contents.fh, find)

    def _setlk(self, pointer: int, ino: int, info: Any, flock: Any, wait: int) -> None:
        owner, lock = info.contents.lock_owner, _lock(flock.contents)

        async def take(request: Request, file: File) -> None:
            await self._adapter.fs.setlk(ino, file.handle, owner, lock, bool(wait))
            request.fail(0)

        self._requests.start(pointer, info.contents.fh, take)

    def _flock(self, pointer: int, ino: int, info: Any, operation: int) -> None:
        owner = info.contents.lock_owner
        kind, wait = _KINDS[operation & ~fcntl.LOCK_NB], not operation & fcntl.LOCK_NB

        async def take(request: Request, file: File) -> None:
            file.flock_owner = owner
            await self._adapter.fs.flock(ino, file.handle, owner, kind, wait)
            request.fail(0)

        self._requests.start(pointer, info.contents.fh, take)

    # Closing ----------------------------------------------------------------------------------

    def _around_open(self, inner: Operation) -> Operation:
        """A file that is only read need not be told of when it is closed: what was locked by it ends with it."""

        def opening(pointer: int, ino: int, info: Any) -> None:
            contents = info.contents
            if contents.flags & (os.O_ACCMODE | os.O_TRUNC) == os.O_RDONLY:
                contents.bits |= NOFLUSH
            inner(pointer, ino, info)

        return opening

    def _around_create(self, inner: Operation) -> Operation:
        """Nor one that is new."""

        def creating(pointer: int, parent: int, name: int, mode: int, info: Any) -> None:
            contents = info.contents
            if contents.flags & os.O_EXCL:
                contents.bits |= NOFLUSH
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
