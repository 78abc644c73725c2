"""What the consumer has open of a tree."""

from __future__ import annotations

import errno
from typing import Final

from umlfs.externfs.calls import Calls
from umlfs.externfs.contents import Budget, Contents
from umlfs.externfs.inodes import Inode
from umlfs.externfs.listing import Listing
from umlfs.externfs.node import Directory, File
from umlfs.externfs.opening import opened
from umlfs.host.syscalls import failure

_BUDGET: Final = 256 << 20
"""Bytes that may be written and not yet committed."""
_HANDLES_MAX: Final = 1 << 16


def note_written(inode: Inode, contents: Contents) -> None:
    """What was written to last tells the size."""
    if not contents.stream:
        inode.written = contents


class Handles:
    """The open files and directories of one tree, by their handles."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._budget = Budget(_BUDGET)
        self.contents: dict[int, tuple[Inode, Contents]] = {}
        self.listings: dict[int, tuple[Inode, Listing]] = {}
        self._last = 0

    def new(self) -> int:
        """A new one. ENFILE: a guest opens and never closes."""
        if len(self.contents) + len(self.listings) >= _HANDLES_MAX:
            raise failure(errno.ENFILE)
        self._last += 1
        return self._last

    def opened(self, handle: int) -> tuple[Inode, Contents]:
        """An open file. EBADF."""
        try:
            return self.contents[handle]
        except KeyError:
            raise failure(errno.EBADF) from None

    async def open(self, inode: Inode, flags: int) -> Contents:
        """Open a file, without a handle yet. EISDIR, EINVAL."""
        node = inode.node
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        if not isinstance(node, File):
            raise failure(errno.EINVAL)
        return await opened(self._calls, node, flags, self._budget)

    def drop_name(self, directory: Inode, name: bytes) -> None:
        """Listings of `directory` that are under way show the name no more."""
        for listed, listing in self.listings.values():
            if listed is directory:
                listing.drop(name)

    def take_all(self) -> list[Contents | Listing]:
        """All that is open, to be closed: the consumer is gone."""
        found: list[Contents | Listing] = [contents for _, contents in self.contents.values()]
        found += [listing for _, listing in self.listings.values()]
        self.contents.clear()
        self.listings.clear()
        return found
