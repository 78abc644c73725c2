"""Any `Filesystem` as nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Hashable

from umlfs.externfs.contents import Contents
from umlfs.externfs.node import Attributes, Child, Directory, File, Link, Node
from umlfs.filesystem import NO_HANDLE, ROOT, Attr, Caller, Entry, Filesystem, SetAttr
from umlfs.host.syscalls import failure

_BATCH = 256


class Held:
    """An inode of a filesystem, held by one lookup until nobody has the node any more."""

    def __init__(self, filesystem: Filesystem, label: str, ino: int, attr: Attr) -> None:
        self.fs, self.label, self.ino, self.attr = filesystem, label, ino, attr

    def __del__(self) -> None:
        if self.ino != ROOT:
            self.fs.forget(self.ino, 1)

    @property
    def key(self) -> Hashable:
        return "inner", self.label, self.ino

    async def attributes(self) -> Attributes:
        attr = (await self.fs.getattr(self.ino))[0]
        return Attributes(
            stat.S_IMODE(attr.mode),
            attr.size,
            attr.mtime_ns,
            attr.atime_ns,
            attr.ctime_ns,
            attr.uid,
            attr.gid,
            attr.nlink,
            attr.rdev,
            attr.blocks,
        )

    async def change(self, changes: SetAttr) -> None:
        changes.size = None
        await self.fs.setattr(self.ino, changes)


async def node_of(fs: Filesystem, label: str, entry: Entry) -> Node:
    """The node of what was looked up. ENOENT."""
    if not entry.ino:
        raise failure(errno.ENOENT)
    held = Held(fs, label, entry.ino, entry.attr)
    if stat.S_ISDIR(entry.attr.mode):
        return InnerDirectory(held)
    if stat.S_ISLNK(entry.attr.mode):
        return InnerLink(held, await fs.readlink(entry.ino))
    if stat.S_ISREG(entry.attr.mode):
        return InnerFile(held)
    return InnerSpecial(held)


async def root_of(fs: Filesystem, label: str) -> InnerDirectory:
    """The root of a source."""
    return InnerDirectory(Held(fs, label, ROOT, (await fs.getattr(ROOT))[0]))


class _Inner(Node):
    """What all of them have."""

    def __init__(self, held: Held) -> None:
        self.held = held

    @property
    def key(self) -> Hashable:
        return self.held.key

    async def attributes(self) -> Attributes:
        return await self.held.attributes()

    async def change(self, changes: SetAttr) -> None:
        await self.held.change(changes)


class InnerSpecial(_Inner):
    """A fifo, a socket or a device."""

    def __init__(self, held: Held) -> None:
        super().__init__(held)
        self.kind = stat.S_IFMT(held.attr.mode)  # type: ignore[misc]


class InnerLink(_Inner, Link):
    """A symbolic link."""

    def __init__(self, held: Held, target: bytes) -> None:
        _Inner.__init__(self, held)
        self.target = target


class InnerFile(_Inner, File):
    """A file."""

    async def open(self, flags: int) -> Contents:
        fs, ino = self.held.fs, self.held.ino
        try:
            handle = (await fs.open(ino, flags & ~os.O_TRUNC)).handle
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            handle = NO_HANDLE
        return InnerContents(self.held, handle)


class InnerContents(Contents):
    """An open file of the source's."""

    def __init__(self, held: Held, handle: int) -> None:
        self._held, self._fs, self._ino, self._handle = held, held.fs, held.ino, handle

    async def size(self) -> int:
        return (await self._fs.getattr(self._ino, self._handle))[0].size

    async def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        count = await self._fs.read_into(self._ino, self._handle, offset, [memoryview(data)])
        return bytes(memoryview(data)[:count])

    async def write(self, offset: int, data: bytes) -> int:
        return await self._fs.write_from(self._ino, self._handle, offset, [memoryview(data)])

    async def truncate(self, size: int) -> None:
        await self._fs.setattr(self._ino, SetAttr(size=size), self._handle)

    async def commit(self) -> None:
        await self._unless_missing(self._fs.flush)

    async def close(self) -> None:
        await self._unless_missing(self._fs.release)

    async def _unless_missing(self, operation: object) -> None:
        try:
            await operation(self._ino, self._handle)  # type: ignore[operator]
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise


class _Batch:
    """Takes some entries of a directory."""

    def __init__(self) -> None:
        self.offset = 0
        self.found: list[tuple[bytes, Entry]] = []

    def __call__(self, name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        if len(self.found) == _BATCH:
            return False
        self.offset = offset
        if entry is not None and entry.ino:
            self.found.append((name, entry))
        return True


class InnerDirectory(_Inner, Directory):
    """A directory."""

    async def _looked_up(self, name: str) -> Entry:
        return await self.held.fs.lookup(self.held.ino, os.fsencode(name))

    async def _node(self, entry: Entry) -> Node:
        return await node_of(self.held.fs, self.held.label, entry)

    async def lookup(self, name: str) -> Node:
        return await self._node(await self._looked_up(name))

    async def children(self) -> AsyncIterator[Child]:
        return self._listed()

    async def _listed(self) -> AsyncIterator[Child]:
        fs, ino = self.held.fs, self.held.ino
        try:
            handle = (await fs.opendir(ino)).handle
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            handle = NO_HANDLE
        try:
            batch = _Batch()
            while True:
                start, batch.found = batch.offset, []
                await fs.readdir(ino, handle, start, batch, True)
                for name, entry in batch.found:
                    yield os.fsdecode(name), await self._node(entry)
                if batch.offset == start:
                    return
        finally:
            if handle:
                await fs.releasedir(ino, handle)

    async def create(self, name: str, mode: int, caller: Caller) -> Node:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        fs = self.held.fs
        entry, opened = await fs.create(self.held.ino, os.fsencode(name), mode, flags, 0, caller)
        await InnerContents(self.held, NO_HANDLE)._unless_missing(lambda *_: fs.release(entry.ino, opened.handle))
        return await self._node(entry)

    async def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        return await self._node(await self.held.fs.mkdir(self.held.ino, os.fsencode(name), mode, 0, caller))

    async def symlink(self, name: str, target: bytes, caller: Caller) -> Node:
        return await self._node(await self.held.fs.symlink(self.held.ino, os.fsencode(name), target, caller))

    async def remove(self, name: str, node: Node) -> None:
        operation = self.held.fs.rmdir if isinstance(node, Directory) else self.held.fs.unlink
        await operation(self.held.ino, os.fsencode(name))

    async def rename(self, name: str, node: Node, to: Directory, new_name: str, replaced: Node | None) -> None:
        if not isinstance(to, InnerDirectory) or to.held.fs is not self.held.fs:
            raise failure(errno.EXDEV)
        await self.held.fs.rename(self.held.ino, os.fsencode(name), to.held.ino, os.fsencode(new_name))
