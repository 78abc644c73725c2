"""The files that a consumer has open, each with a descriptor of its own."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import NamedTuple

from hostfs.inodes import Inode
from umlfs.host.closing import Closer
from umlfs.host.syscalls import failure


class Handle(NamedTuple):
    """An open file."""

    inode: Inode
    fd: int


class Handles:
    """Handles by number. Numbers count up and are never given twice; there are at most `most` at once."""

    def __init__(self, most: int, closer: Closer) -> None:
        self._most = most
        self._closer = closer
        self._handles: dict[int, Handle] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, inode: Inode, fd: int) -> int:
        """Take `fd` over; the number of its handle. EMFILE (and `fd` is closed) if there are too many."""
        if len(self._handles) >= self._most:
            os.close(fd)
            raise failure(errno.EMFILE)
        number = self._next
        self._next += 1
        self._handles[number] = Handle(inode, fd)
        return number

    def get(self, number: int) -> Handle:
        """The handle of that number. EBADF if there is none."""
        handle = self._handles.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def release(self, number: int) -> None:
        """Close a handle; unknown numbers are ignored."""
        handle = self._handles.pop(number, None)
        if handle is None:
            return
        if handle.inode.pinned:
            self._closer.close(handle.fd)
        else:
            os.close(handle.fd)

    def clear(self) -> None:
        """Close all."""
        while self._handles:
            _, handle = self._handles.popitem()
            with contextlib.suppress(OSError):
                os.close(handle.fd)
