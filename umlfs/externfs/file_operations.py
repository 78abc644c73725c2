"""Open files of a tree of nodes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from umlfs.buffers import scatter, total
from umlfs.externfs.attribute_operations import NodeAttributes
from umlfs.externfs.calls import Calls
from umlfs.externfs.contents import Contents
from umlfs.externfs.handles import Handles, note_written
from umlfs.externfs.inodes import Inode, Inodes
from umlfs.externfs.name_operations import NodeNames
from umlfs.externfs.node import Directory, File
from umlfs.filesystem import Caller, Entry, FileOperations, Opened, SetAttr
from umlfs.host.syscalls import failure


class NodeFiles(FileOperations):
    """The operations on files; see `Filesystem` for each."""

    def __init__(
        self, calls: Calls, inodes: Inodes, handles: Handles, attributes: NodeAttributes, names: NodeNames
    ) -> None:
        self._calls = calls
        self._inodes = inodes
        self._handles = handles
        self._attributes = attributes
        self._names = names

    async def open(self, ino: int, flags: int) -> Opened:
        inode = self._inodes[ino]
        handle = self._handles.new()
        contents = await self._handles.open(inode, flags)
        self._handles.contents[handle] = inode, contents
        if flags & os.O_ACCMODE != os.O_RDONLY:
            inode.writers = (*inode.writers, contents)
        if flags & os.O_TRUNC:
            await self._calls(contents.truncate, 0)
            note_written(inode, contents)
        if not contents.direct and flags & os.O_ACCMODE == os.O_RDONLY:
            await self._remember_size(inode, contents)
        return Opened(handle, direct=contents.direct, stream=contents.stream)

    async def _remember_size(self, inode: Inode, contents: Contents) -> None:
        """A kernel that asks again, as fstat(2) does, is told what a reader gets."""
        node = inode.node
        if isinstance(node, File) and node.size == -1:
            inode.opened_size = await self._calls(contents.size)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        inode, directory, text = self._names.place(parent, name)
        try:
            node = await self._names.child(inode, directory, text)
        except FileNotFoundError:
            if inode.removed:
                raise
            node = await self._calls(directory.create, text, mode, caller)
        else:
            if flags & os.O_EXCL:
                raise failure(errno.EEXIST)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        entry = await self._attributes.entry(inode, node)
        try:
            opening = await self.open(entry.ino, flags)
            entry.attr = (await self._attributes.getattr(entry.ino))[0]
        except OSError:
            self._inodes.forget(entry.ino, 1)
            raise
        return entry, opening

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        contents = self._handles.opened(handle)[1]
        return scatter(await self._calls(contents.read, offset, total(buffers)), buffers)

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        inode, contents = self._handles.opened(handle)
        data = bytes(buffers[0]) if len(buffers) == 1 else b"".join(buffers)
        if not data:
            return 0
        done = await self._calls(contents.write, offset, data)
        note_written(inode, contents)
        if kill_set_id and inode.node.changeable:
            await self._calls(inode.node.change, SetAttr(kill_set_id=True))
        return len(data) if done is None else done

    async def flush(self, ino: int, handle: int) -> None:
        await self.fsync(ino, handle)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        await self._calls(self._handles.opened(handle)[1].commit)

    async def release(self, ino: int, handle: int) -> None:
        found = self._handles.contents.pop(handle, None)
        if found is not None:
            inode, contents = found
            if inode.written is contents:
                inode.written = None
            inode.writers = tuple(one for one in inode.writers if one is not contents)
            await self._calls(contents.close)

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        """All of a file is data."""
        size = await self._calls(self._handles.opened(handle)[1].size)
        if offset >= size:
            raise failure(errno.ENXIO)
        return offset if whence == os.SEEK_DATA else int(size)
