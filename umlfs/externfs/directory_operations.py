"""Listings of a tree's directories."""

from __future__ import annotations

import contextlib
import errno
import stat

from umlfs.externfs.attribute_operations import NodeAttributes
from umlfs.externfs.calls import Calls
from umlfs.externfs.handles import Handles
from umlfs.externfs.inodes import Inode, Inodes
from umlfs.externfs.listing import Listing
from umlfs.externfs.node import Node
from umlfs.filesystem import DirectoryOperations, DirSink, Opened
from umlfs.host.syscalls import failure


class NodeDirectories(DirectoryOperations):
    """The operations on directories; see `Filesystem` for each."""

    def __init__(self, calls: Calls, inodes: Inodes, handles: Handles, attributes: NodeAttributes) -> None:
        self._calls = calls
        self._inodes = inodes
        self._handles = handles
        self._attributes = attributes

    async def opendir(self, ino: int) -> Opened:
        inode, directory = self._inodes.directory(ino)
        handle = self._handles.new()
        self._handles.listings[handle] = inode, Listing(self._calls, directory)
        return Opened(handle)

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        """Offsets 1 and 2 are those after `.` and `..`."""
        inode, _ = self._inodes.directory(ino)
        if handle not in self._handles.listings:
            raise failure(errno.EBADF)
        if offset < 1 and not add(b".", 1, inode.number, stat.S_IFDIR, None):
            return
        if offset < 2 and not add(b"..", 2, inode.parent_number, stat.S_IFDIR, None):
            return
        if inode.removed:
            return
        listing = self._handles.listings[handle][1]
        position = max(offset - 2, 0)
        while entries := await listing.entries(position):
            for item in entries:
                position += 1
                if item is not None and not await self._add(inode, *item, position + 2, add, plus):
                    return

    async def _add(self, parent: Inode, name: bytes, node: Node, offset: int, add: DirSink, plus: bool) -> bool:
        """Offer one name; whether there was room for it."""
        entry = None
        if plus and node.listed:
            with contextlib.suppress(OSError):  # it vanished meanwhile, or is out of order; who looks it up is told
                entry = await self._attributes.entry(parent, node)
        taken = add(name, offset, self._inodes.number(node), node.kind, entry)
        if entry is not None and not taken:
            self._inodes.forget(entry.ino, 1)
        return taken

    async def releasedir(self, ino: int, handle: int) -> None:
        found = self._handles.listings.pop(handle, None)
        if found is not None:
            await found[1].close()

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        """Names are made and removed at once."""
