"""The files that a consumer has open.

All handles of an inode share the descriptor that it holds, which stays until the last of them is released. One that is
open for what the shared descriptor is not good for has a descriptor of its own: a file that may be written but not
read, opened before it could be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from hostfs.descriptors import Descriptors
from hostfs.inodes import Inode
from umlfs.host.closing import Closer
from umlfs.host.syscalls import failure

HANDLES_MAX: Final = 1 << 20
"""Handles cost memory, descriptors or not."""


class Handle:
    """An open file."""

    __slots__ = ("inode", "own", "owners")

    def __init__(self, inode: Inode, own: int) -> None:
        self.inode = inode
        self.own = own
        """Its own descriptor, or -1."""
        self.owners: set[int] | None = None
        """Who has taken POSIX locks by it."""

    @property
    def fd(self) -> int:
        """The descriptor, valid until the next await. EBADF if the consumer has forgotten the inode meanwhile."""
        fd = self.own if self.own >= 0 else self.inode.fd
        if fd < 0:
            raise failure(errno.EBADF)
        return fd


class Handles:
    """Handles by number. Numbers count up and are never given twice."""

    def __init__(self, descriptors: Descriptors, closer: Closer, most: int = HANDLES_MAX) -> None:
        self._descriptors = descriptors
        self._closer = closer
        self._most = most
        self.numbers: dict[int, Handle] = {}
        """All that are open."""
        self._next = 1

    def __len__(self) -> int:
        return len(self.numbers)

    def check_room(self, inode: Inode | None = None) -> None:
        """ENFILE if there are too many to open one more, of `inode`."""
        if len(self.numbers) >= self._most:
            raise failure(errno.ENFILE)
        if inode is None or not inode.opens:
            self._descriptors.make_room()

    def share(self, inode: Inode) -> int:
        """The number of one more handle by the descriptor that `inode` holds."""
        self._descriptors.open(inode)
        return self._add(Handle(inode, -1))

    def add(self, inode: Inode, fd: int, access: int) -> int:
        """Take over `fd`, opened for `access`; the number of its handle."""
        if inode.opens and inode.access & ~access:
            self._descriptors.extra += 1
            return self._add(Handle(inode, fd))
        self._descriptors.hold(inode, fd, access)
        return self.share(inode)

    def _add(self, handle: Handle) -> int:
        number = self._next
        self._next += 1
        self.numbers[number] = handle
        return number

    def get(self, number: int) -> Handle:
        """The handle of that number. EBADF if there is none."""
        handle = self.numbers.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def release(self, number: int) -> Handle | None:
        """Close a handle, and return it; unknown numbers are ignored."""
        handle = self.numbers.pop(number, None)
        if handle is None:
            return None
        if handle.own < 0:
            self._descriptors.close(handle.inode)
            return handle
        self._descriptors.extra -= 1
        if handle.inode.pinned:
            self._closer.close(handle.own)
        else:
            os.close(handle.own)
        return handle

    def clear(self) -> None:
        """Close all."""
        while self.numbers:
            _, handle = self.numbers.popitem()
            if handle.own >= 0:
                self._descriptors.extra -= 1
                with contextlib.suppress(OSError):
                    os.close(handle.own)
