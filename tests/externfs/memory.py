"""A tree in memory that can do all that nodes can: what the contract is checked against."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Iterator

from umlfs.externfs.calls import instant
from umlfs.externfs.contents import Contents
from umlfs.externfs.node import Attributes, Child, Directory, File, Link, Node
from umlfs.filesystem import NOW, Caller, SetAttr
from umlfs.host.syscalls import failure


class Stored:
    """The attributes of a node, kept. (A mixin of tests: nodes of real trees have theirs from what they show.)"""

    def __init__(self, mode: int, caller: Caller, parent: MemoryDirectory | None) -> None:
        now = time.time_ns()
        self.stored = Attributes(stat.S_IMODE(mode), 0, now, now, now, caller.uid, caller.gid)
        self.parent = parent
        if parent is not None and parent.stored.mode & stat.S_ISGID:
            self.stored.gid = parent.stored.gid
            if isinstance(self, Directory):
                self.stored.mode |= stat.S_ISGID

    @instant
    async def attributes(self) -> Attributes:
        self.stored.size = self.length()
        return self.stored

    def length(self) -> int:
        return 0

    def touch(self) -> None:
        self.stored.mtime_ns = self.stored.ctime_ns = time.time_ns()

    @instant
    async def change(self, changes: SetAttr) -> None:
        stored = self.stored
        if changes.kill_set_id or changes.uid is not None or changes.gid is not None:
            executed = stored.mode & stat.S_IXGRP
            stored.mode &= ~(stat.S_ISUID | (stat.S_ISGID if executed else 0))
        for field in ("mode", "uid", "gid"):
            if (value := getattr(changes, field)) is not None:
                setattr(stored, field, value)
        for field in ("atime_ns", "mtime_ns"):
            if (value := getattr(changes, field)) is not None:
                setattr(stored, field, time.time_ns() if value == NOW else value)
        if changes != SetAttr():
            stored.ctime_ns = time.time_ns()


class MemoryFile(Stored, File):
    def __init__(self, mode: int, caller: Caller, parent: MemoryDirectory) -> None:
        super().__init__(mode, caller, parent)
        self.data = bytearray()

    def length(self) -> int:
        return len(self.data)

    @instant
    async def open(self, flags: int) -> Contents:
        return MemoryContents(self)


class MemoryContents(Contents):
    def __init__(self, file: MemoryFile) -> None:
        self.file = file

    @instant
    async def size(self) -> int:
        return len(self.file.data)

    @instant
    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.file.data[offset : offset + length])

    @instant
    async def write(self, offset: int, data: bytes) -> int:
        held = self.file.data
        held.extend(bytes(max(0, offset - len(held))))
        held[offset : offset + len(data)] = data
        self.file.touch()
        return len(data)

    @instant
    async def truncate(self, size: int) -> None:
        held = self.file.data
        if size > len(held):
            held.extend(bytes(size - len(held)))
        del held[size:]
        self.file.touch()


class MemoryLink(Stored, Link):
    def __init__(self, target: bytes, caller: Caller, parent: MemoryDirectory) -> None:
        Link.__init__(self, target)
        Stored.__init__(self, 0o777, caller, parent)

    def length(self) -> int:
        return len(self.target)


class MemoryDevice(Stored, Node):
    def __init__(self, mode: int, rdev: int, caller: Caller, parent: MemoryDirectory) -> None:
        super().__init__(mode, caller, parent)
        self.kind = stat.S_IFMT(mode)  # type: ignore[misc]
        self.stored.rdev = rdev


class MemoryDirectory(Stored, Directory):
    def __init__(self, mode: int = 0o755, caller: Caller | None = None, parent: MemoryDirectory | None = None) -> None:
        super().__init__(mode, caller or Caller(), parent)
        self.names: dict[str, Node] = {}

    @instant
    async def lookup(self, name: str) -> Node:
        node = self.names.get(name)
        if node is None:
            raise failure(errno.ENOENT)
        return node

    @instant
    async def children(self) -> Iterator[Child]:
        return ((name, self.names[name]) for name in list(self.names) if name in self.names)

    def _enter(self, name: str, node: Node) -> Node:
        if not self.stored.nlink:
            raise failure(errno.ENOENT)
        self.names[name] = node
        self.touch()
        return node

    @instant
    async def create(self, name: str, mode: int, caller: Caller) -> Node:
        return self._enter(name, MemoryFile(mode, caller, self))

    @instant
    async def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        return self._enter(name, MemoryDirectory(mode, caller, self))

    @instant
    async def symlink(self, name: str, target: bytes, caller: Caller) -> Node:
        return self._enter(name, MemoryLink(target, caller, self))

    @instant
    async def mknod(self, name: str, mode: int, rdev: int, caller: Caller) -> Node:
        return self._enter(name, MemoryDevice(mode, rdev, caller, self))

    @instant
    async def link(self, name: str, node: Node) -> None:
        self._enter(name, node)
        node.stored.nlink += 1  # type: ignore[attr-defined]

    @instant
    async def remove(self, name: str, node: Node) -> None:
        if isinstance(node, MemoryDirectory) and node.names:
            raise failure(errno.ENOTEMPTY)
        del self.names[name]
        node.stored.nlink -= 1  # type: ignore[attr-defined]
        self.touch()

    @instant
    async def rename(self, name: str, node: Node, to: Directory, new_name: str, replaced: Node | None) -> None:
        assert isinstance(to, MemoryDirectory)
        _check_not_inside(node, to)
        if isinstance(replaced, MemoryDirectory) and replaced.names:
            raise failure(errno.ENOTEMPTY)
        del self.names[name]
        to.names[new_name] = node
        node.parent = to  # type: ignore[attr-defined]
        if replaced is not None:
            replaced.stored.nlink -= 1  # type: ignore[attr-defined]
        self.touch()
        to.touch()

    @instant
    async def exchange(self, name: str, node: Node, to: Directory, new_name: str, other: Node) -> None:
        assert isinstance(to, MemoryDirectory)
        _check_not_inside(node, to)
        _check_not_inside(other, self)
        self.names[name], to.names[new_name] = other, node
        node.parent, other.parent = to, self  # type: ignore[attr-defined]


def _check_not_inside(node: Node, place: MemoryDirectory | None) -> None:
    while place is not None:
        if place is node:
            raise failure(errno.EINVAL)
        place = place.parent
