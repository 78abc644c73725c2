"""Locks of a consumer's files, taken on the host: one lock for all who use a file, wherever they run.

For each owner that holds locks of a file there is one more open file description on the host, by which they are taken
and with whose end they are freed: POSIX locks as open file description locks, flock(2) as such. Nobody is told when a
lock becomes free, so who waits asks again and again; a wait can be cancelled at any time.

SQLite in WAL mode shares the file `NAME-shm` by mapping it, which only programs of one kernel can. Whoever opens it
for writing through a filesystem holds the byte by which SQLite knows the first of its users, exclusively: for those of
other kernels the database is locked, rather than destroyed. What its users lock themselves is between them alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import trio

from hostfs.descriptors import Descriptors
from hostfs.handles import Handle
from hostfs.inodes import Inode
from hostfs.resolver import reopen
from hostfs.settings import Settings
from umlfs.filesystem import LOCK_END, Lock
from umlfs.host.syscalls import failure

WAIT_MIN: Final = 0.001
WAIT_MAX: Final = 0.05
"""Seconds between two looks for a lock that somebody else has: twice as long each time."""

SHARED_MEMORY: Final = b"-shm"
"""How the names end of files that SQLite maps."""
_FIRST_USER: Final = Lock(fcntl.F_WRLCK, 128, 128)
"""The byte of such a file that all who map it lock for reading (UNIX_SHM_DMS)."""
_ASIDE: Final = 1 << 40
"""Where locks of a file that is kept from other kernels are, so as not to meet that byte."""

_FLOCK: Final = struct.Struct("@hhqqi4x")
"""struct flock, on machines of 64 bits."""
_F_OFD_GETLK: Final = 36
_F_OFD_SETLK: Final = 37
_OPERATIONS: Final = {
    fcntl.F_RDLCK: fcntl.LOCK_SH | fcntl.LOCK_NB,
    fcntl.F_WRLCK: fcntl.LOCK_EX | fcntl.LOCK_NB,
    fcntl.F_UNLCK: fcntl.LOCK_UN,
}
_TAKEN: Final = (errno.EAGAIN, errno.EACCES)

_TICK: Final = 0.02
"""What the consumer's clock may be behind, in seconds: two of a kernel's ticks."""

_Key = tuple[Inode, int, bool]
"""Whose locks: of which file, of which owner, and whether they are flock's."""


def _packed(lock: Lock, kind: int, shift: int) -> bytes:
    length = 0 if lock.end >= LOCK_END else lock.end - lock.start + 1
    return _FLOCK.pack(kind, os.SEEK_SET, lock.start + shift, length, 0)


class Locks:
    """Those that the consumer of one filesystem holds."""

    def __init__(self, settings: Settings, descriptors: Descriptors) -> None:
        self._settings = settings
        self._descriptors = descriptors
        self._fds: dict[_Key, int] = {}
        self.drop_cached: Callable[[int], Awaitable[None]] | None = None
        """Has a consumer that can be told drop what it has cached of an inode."""
        self._guards: dict[Inode, int] = {}
        """Of the files that are kept from other kernels: what holds the byte."""

    def __len__(self) -> int:
        return len(self._fds) + len(self._guards)

    # Asking and taking ------------------------------------------------------------------------

    def find(self, handle: Handle, owner: int, lock: Lock) -> Lock | None:
        """A lock of somebody else that keeps `owner` from having `lock`, if there is one."""
        inode = handle.inode
        known = self._fds.get((inode, owner, False))
        fd = self._open(handle) if known is None else known
        shift = self._shift(inode)
        try:
            answer = fcntl.fcntl(fd, _F_OFD_GETLK, _packed(lock, lock.kind, shift))
        finally:
            if known is None:
                os.close(fd)
        kind, _, start, length, _ = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            return None
        covered = start <= _FIRST_USER.start < start + (length or LOCK_END)
        if covered and not shift and inode.name.endswith(SHARED_MEMORY):
            kind = fcntl.F_WRLCK  # of another kernel, which it maps the file with: nobody here may
        return Lock(kind, max(0, start - shift), LOCK_END if not length else start - shift + length - 1)

    async def take(self, handle: Handle, owner: int, lock: Lock, wait: bool, *, whole: bool = False) -> None:
        """Take, change or give back a lock; of the `whole` file as flock(2) does. EAGAIN if somebody else has it,
        unless it is to be waited for. ENOLCK if there are too many."""
        key = (handle.inode, owner, whole)
        if lock.kind == fcntl.F_UNLCK:
            self._give_back(key, lock)
            return
        if key not in self._fds:
            self._fds[key] = self._opened(handle)
        if self.drop_cached is None:
            await self._believed(handle.inode)
        pause = WAIT_MIN
        while not self._try(key, lock):
            if not wait:
                raise failure(errno.EAGAIN)
            await trio.sleep(pause)
            pause = min(2 * pause, WAIT_MAX)
        if self.drop_cached is None:
            handle.inode.locked += 1
        else:
            with trio.CancelScope(shield=True):  # it has the lock by now
                await self.drop_cached(handle.inode.node)

    async def _believed(self, inode: Inode) -> None:
        """Before the first lock of a file: wait until nothing that was told of it is believed any more. What others
        wrote before they let go of the lock must be seen with it."""
        if not inode.locked:
            inode.locked = 1
            await trio.sleep(max(0.0, inode.answered_at + self._settings.valid_ns / 1e9 + _TICK - monotonic()))

    def _try(self, key: _Key, lock: Lock) -> bool:
        fd = self._fds.get(key)
        if fd is None:
            raise failure(errno.EBADF)  # closed meanwhile
        try:
            if key[2]:
                fcntl.flock(fd, _OPERATIONS[lock.kind])
            else:
                fcntl.fcntl(fd, _F_OFD_SETLK, _packed(lock, lock.kind, self._shift(key[0])))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def _give_back(self, key: _Key, lock: Lock) -> None:
        if key[2] or (lock.start == 0 and lock.end >= LOCK_END):
            self._close(key)
        elif (fd := self._fds.get(key)) is not None:
            fcntl.fcntl(fd, _F_OFD_SETLK, _packed(lock, fcntl.F_UNLCK, self._shift(key[0])))

    def _shift(self, inode: Inode) -> int:
        return _ASIDE if inode in self._guards else 0

    # Descriptors ------------------------------------------------------------------------------

    def _open(self, handle: Handle) -> int:
        """One more description of an open file, for writing too where that may be: locks for writing take that."""
        if handle.inode.kind != stat.S_IFREG:
            raise failure(errno.EBADF)
        with contextlib.suppress(OSError):
            if not self._settings.read_only:
                return self._descriptors.open_with(reopen, handle.fd, os.O_RDWR | os.O_NONBLOCK)
        return self._descriptors.open_with(reopen, handle.fd, os.O_RDONLY | os.O_NONBLOCK)

    def _opened(self, handle: Handle) -> int:
        try:
            self._descriptors.make_room()
            fd = self._open(handle)
        except OSError as error:
            raise failure(errno.ENOLCK if error.errno == errno.ENFILE else error.errno or errno.EIO) from None
        self._descriptors.extra += 1
        return fd

    def _close(self, key: _Key) -> None:
        fd = self._fds.pop(key, None)
        if fd is not None:
            self._descriptors.extra -= 1
            os.close(fd)

    # The end ----------------------------------------------------------------------------------

    def free(self, inode: Inode, owner: int, *, whole: bool = False) -> None:
        """`owner` gives back all its locks of a file."""
        self._close((inode, owner, whole))

    def clear(self) -> None:
        """All are free."""
        for key in list(self._fds):
            self._close(key)
        for inode in list(self._guards):
            self.unguard(inode)

    # What only one kernel may map -------------------------------------------------------------

    def guard(self, handle: Handle) -> None:
        """The file is about to be open for writing: if SQLite would map it, keep it from others. EBUSY if they have
        it already."""
        inode = handle.inode
        if inode in self._guards or not inode.name.endswith(SHARED_MEMORY) or not self._settings.locks:
            return
        fd = self._opened(handle)
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _packed(_FIRST_USER, fcntl.F_WRLCK, 0))
        except OSError as error:
            self._descriptors.extra -= 1
            os.close(fd)
            raise failure(errno.EBUSY if error.errno in _TAKEN else error.errno or errno.EIO) from None
        self._guards[inode] = fd

    def unguard(self, inode: Inode) -> None:
        """The file was closed for the last time."""
        fd = self._guards.pop(inode, None)
        if fd is not None:
            self._descriptors.extra -= 1
            os.close(fd)
