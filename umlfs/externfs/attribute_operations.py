"""The attributes of a tree's nodes, as a consumer gets them."""

from __future__ import annotations

import errno
import os
import stat
import time

from umlfs.externfs.calls import Calls
from umlfs.externfs.handles import Handles, note_written
from umlfs.externfs.inodes import Inode, Inodes
from umlfs.externfs.node import Attributes, File, Node
from umlfs.externfs.opening import has, whole
from umlfs.filesystem import NO_HANDLE, NOW, ROOT, Attr, AttributeOperations, Caller, Entry, SetAttr, StatFs
from umlfs.host.syscalls import failure


class NodeAttributes(AttributeOperations):
    """The operations on attributes; see `Filesystem` for each."""

    def __init__(self, calls: Calls, inodes: Inodes, handles: Handles) -> None:
        self._calls = calls
        self._inodes = inodes
        self._handles = handles
        self._since = time.time_ns()
        self._owner = os.geteuid(), os.getegid()

    async def entry(self, parent: Inode, node: Node) -> Entry:
        """Hand a node out, as one found in `parent`; counts a lookup."""
        known = self._inodes.get(node.key)
        attr = await self.attr(node, known)
        inode = self._inodes.count(node, parent)
        attr.ino = inode.number
        return Entry(inode.ino, attr, node.valid_ns, node.valid_ns)

    async def of_node(self, node: Node) -> Attributes:
        """What a node says of itself, with its size."""
        found: Attributes = await self._calls(node.attributes)
        if isinstance(node, File) and not has(node, Node, "attributes"):
            found.size = await self._file_size(node)
        return found

    async def _file_size(self, file: File) -> int:
        if file.size is not None:
            return max(file.size, 0)
        if has(file, File, "open") or has(file, File, "read_at") or not has(file, File, "read"):
            return 0
        return len(await whole(self._calls, file))

    async def attr(self, node: Node, inode: Inode | None) -> Attr:
        """The attributes of a node, known as `inode` or not yet."""
        found = await self.of_node(node)
        size = found.size if inode is None else await self._present_size(inode, found.size)
        nlink = found.nlink
        if inode is not None and inode.removed:
            nlink = min(nlink, 0)
        mtime = self._since if found.mtime_ns is None else found.mtime_ns
        return Attr(
            inode.number if inode is not None else 0,
            node.kind | found.mode,
            nlink,
            self._owner[0] if found.uid is None else found.uid,
            self._owner[1] if found.gid is None else found.gid,
            found.rdev,
            size,
            -(-size // 512) if found.blocks is None else found.blocks,
            mtime if found.atime_ns is None else found.atime_ns,
            mtime,
            mtime if found.ctime_ns is None else found.ctime_ns,
        )

    async def _present_size(self, inode: Inode, size: int) -> int:
        """What is being written counts already: an appending consumer goes by it."""
        if inode.written is not None:
            return int(await self._calls(inode.written.size))
        return size or inode.opened_size or 0

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        inode = self._inodes[ino]
        return await self.attr(inode.node, inode), inode.node.valid_ns

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        inode = self._inodes[ino]
        node = inode.node
        if changes.size is not None:
            await self._truncate(inode, changes.size, handle)
        if node.changeable:
            await self._calls(node.change, changes)
        else:
            await self._unchanged(inode, changes)
        return await self.getattr(ino, handle)

    async def _unchanged(self, inode: Inode, changes: SetAttr) -> None:
        """EPERM unless `changes` ask for what there is; a change of times to the present may be asked of anything."""
        now = await self.attr(inode.node, inode)
        differs = (
            changes.mode not in (None, stat.S_IMODE(now.mode)),
            changes.uid not in (None, now.uid),
            changes.gid not in (None, now.gid),
            changes.atime_ns not in (None, NOW, now.atime_ns),
            changes.mtime_ns not in (None, NOW, now.mtime_ns),
        )
        if any(differs):
            raise failure(errno.EPERM)

    async def _truncate(self, inode: Inode, size: int, handle: int) -> None:
        if handle in self._handles.contents:
            contents = self._handles.contents[handle][1]
            await self._calls(contents.truncate, size)
            note_written(inode, contents)
            return
        if inode.writers:  # one that was just opened to be written anew: not to be emptied before it is
            for contents in inode.writers:
                await self._calls(contents.truncate, size)
                note_written(inode, contents)
            return
        contents = await self._handles.open(inode, os.O_RDWR)
        try:
            await self._calls(contents.truncate, size)
            await self._calls(contents.commit)
        finally:
            await self._calls(contents.close)

    async def statfs(self, ino: int = ROOT) -> StatFs:
        self._inodes[ino]
        return StatFs()
