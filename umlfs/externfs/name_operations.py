"""Names in a tree of nodes: lookup, and all that makes, moves or removes one."""

from __future__ import annotations

import errno
import os
import stat

from umlfs.externfs.attribute_operations import NodeAttributes
from umlfs.externfs.calls import Calls
from umlfs.externfs.handles import Handles
from umlfs.externfs.inodes import Inode, Inodes
from umlfs.externfs.listing import search
from umlfs.externfs.node import Directory, Link, Node
from umlfs.externfs.opening import has
from umlfs.filesystem import NAME_MAX, Caller, Entry, NameOperations
from umlfs.host.syscalls import failure

_NOREPLACE, _EXCHANGE = 1, 2


class NodeNames(NameOperations):
    """The operations on names; see `Filesystem` for each."""

    def __init__(self, calls: Calls, inodes: Inodes, handles: Handles, attributes: NodeAttributes) -> None:
        self._calls = calls
        self._inodes = inodes
        self._handles = handles
        self._attributes = attributes

    def place(self, ino: int, name: bytes) -> tuple[Inode, Directory, str]:
        """A directory, and a name as a plugin gets it."""
        inode, directory = self._inodes.directory(ino)
        if len(name) > NAME_MAX:
            raise failure(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:  # no plugin is to see what leads elsewhere
            raise failure(errno.ENOENT)
        return inode, directory, os.fsdecode(name)

    async def child(self, inode: Inode, directory: Directory, name: str) -> Node:
        """What the name leads to. ENOENT."""
        if inode.removed:
            raise failure(errno.ENOENT)
        if has(directory, Directory, "lookup"):
            node: Node = await self._calls(directory.lookup, name)
            return node
        return await search(self._calls, directory, name)

    async def _absent(self, inode: Inode, directory: Directory, name: str) -> None:
        """EEXIST if the name is taken."""
        try:
            await self.child(inode, directory, name)
        except FileNotFoundError:
            if inode.removed:
                raise
            return
        raise failure(errno.EEXIST)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        inode, directory, text = self.place(parent, name)
        return await self._attributes.entry(inode, await self.child(inode, directory, text))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        inode, directory, text = self.place(parent, name)
        await self._absent(inode, directory, text)
        if stat.S_ISREG(mode):
            return await self._attributes.entry(
                inode, await self._calls(directory.create, text, stat.S_IMODE(mode), caller)
            )
        return await self._attributes.entry(inode, await self._calls(directory.mknod, text, mode, rdev, caller))

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        inode, directory, text = self.place(parent, name)
        await self._absent(inode, directory, text)
        return await self._attributes.entry(inode, await self._calls(directory.mkdir, text, mode, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        inode, directory, text = self.place(parent, name)
        await self._absent(inode, directory, text)
        return await self._attributes.entry(inode, await self._calls(directory.symlink, text, target, caller))

    async def readlink(self, ino: int) -> bytes:
        node = self._inodes[ino].node
        if not isinstance(node, Link):
            raise failure(errno.EINVAL)
        return node.target

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        inode, directory, text = self.place(new_parent, new_name)
        node = self._inodes[ino].node
        if isinstance(node, Directory):
            raise failure(errno.EPERM)
        await self._absent(inode, directory, text)
        await self._calls(directory.link, text, node)
        return await self._attributes.entry(inode, node)

    async def unlink(self, parent: int, name: bytes) -> None:
        inode, directory, text = self.place(parent, name)
        node = await self.child(inode, directory, text)
        if isinstance(node, Directory):
            raise failure(errno.EISDIR)
        await self._remove(inode, directory, name, text, node)

    async def rmdir(self, parent: int, name: bytes) -> None:
        inode, directory, text = self.place(parent, name)
        node = await self.child(inode, directory, text)
        if not isinstance(node, Directory):
            raise failure(errno.ENOTDIR)
        await self._remove(inode, directory, name, text, node)

    async def _remove(self, inode: Inode, directory: Directory, name: bytes, text: str, node: Node) -> None:
        await self._calls(directory.remove, text, node)
        await self._gone(inode, name, node)

    async def _gone(self, parent: Inode, name: bytes, node: Node) -> None:
        """`node` lost the name; perhaps its last one."""
        self._handles.drop_name(parent, name)
        if isinstance(node, Directory) or node.key is not node or (await self._attributes.of_node(node)).nlink < 1:
            self._inodes.remove(node)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        inode, directory, text = self.place(parent, name)
        target, to, new_text = self.place(new_parent, new_name)
        if flags & ~(_NOREPLACE | _EXCHANGE) or flags == _NOREPLACE | _EXCHANGE:
            raise failure(errno.EINVAL)
        node = await self.child(inode, directory, text)
        other = await self._replaced(target, to, new_text)
        if flags & _EXCHANGE:
            if other is None:
                raise failure(errno.ENOENT)
            await self._calls(directory.exchange, text, node, to, new_text, other)
            await self._moved(node, target, to, new_text)
            await self._moved(other, inode, directory, text)
            return
        if other is not None:
            if flags & _NOREPLACE:
                raise failure(errno.EEXIST)
            if other.key == node.key:
                return
            _check_replaceable(node, other)
        await self._calls(directory.rename, text, node, to, new_text, other)
        if other is not None:
            await self._gone(target, new_name, other)
        await self._moved(node, target, to, new_text)

    async def _replaced(self, target: Inode, to: Directory, name: str) -> Node | None:
        try:
            return await self.child(target, to, name)
        except FileNotFoundError:
            if target.removed:
                raise
            return None

    async def _moved(self, node: Node, target: Inode, to: Directory, name: str) -> None:
        """A node whose key is its place is another one now; the inode stays."""
        if node.key is node:
            self._inodes.move(node, node, target)
        elif self._inodes.get(node.key) is not None:
            self._inodes.move(node, await self.child(target, to, name), target)


def _check_replaceable(node: Node, other: Node) -> None:
    """EISDIR, ENOTDIR."""
    if isinstance(other, Directory) and not isinstance(node, Directory):
        raise failure(errno.EISDIR)
    if isinstance(node, Directory) and not isinstance(other, Directory):
        raise failure(errno.ENOTDIR)
