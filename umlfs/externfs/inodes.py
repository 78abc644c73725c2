"""The nodes that the consumer knows, by their numbers."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from typing import Final

from umlfs.externfs.contents import Contents
from umlfs.externfs.node import Directory, Node
from umlfs.filesystem import ROOT
from umlfs.host.syscalls import failure

_POSITIVE: Final = (1 << 63) - 1


class Inode:
    """A node that was handed out."""

    __slots__ = ("ino", "lookups", "node", "number", "opened_size", "parent_number", "removed", "writers", "written")

    def __init__(self, ino: int, number: int, node: Node, parent_number: int) -> None:
        self.ino = ino
        self.number = number
        """st_ino: the same for one node as long as the tree is open."""
        self.node = node
        self.parent_number = parent_number
        """st_ino of the directory it is in."""
        self.lookups = 0
        self.removed = False
        self.writers: tuple[Contents, ...] = ()
        """What is open for writing."""
        self.written: Contents | None = None
        """The open file that was written to last; its size counts."""
        self.opened_size: int | None = None
        """What the last opening found the size to be, of a file that knows it only then."""


def number_of(node: Node) -> int:
    """The st_ino of a node; never that of the root."""
    return (hash(node.key) & _POSITIVE) >> node.early | 2


class Inodes:
    """The table: numbers stay valid until every lookup is given back."""

    def __init__(self, root: Directory) -> None:
        self.root = Inode(ROOT, ROOT, root, ROOT)
        self._by_ino = {ROOT: self.root}
        self._by_key = {root.key: self.root}
        self._last = ROOT

    def __len__(self) -> int:
        return len(self._by_ino)

    def __getitem__(self, ino: int) -> Inode:
        """ESTALE for a number that was not handed out."""
        try:
            return self._by_ino[ino]
        except KeyError:
            raise failure(errno.ESTALE) from None

    def directory(self, ino: int) -> tuple[Inode, Directory]:
        """A directory that was handed out. ESTALE, ENOTDIR."""
        inode = self[ino]
        if not isinstance(inode.node, Directory):
            raise failure(errno.ENOTDIR)
        return inode, inode.node

    def get(self, key: Hashable) -> Inode | None:
        """The inode of a node that is known."""
        return self._by_key.get(key)

    def number(self, node: Node) -> int:
        """The st_ino of a node, known or not."""
        return ROOT if node is self.root.node else number_of(node)

    def count(self, node: Node, parent: Inode) -> Inode:
        """The inode of `node`, one lookup of it counted."""
        key = node.key
        inode = self._by_key.get(key)
        if inode is None:
            self._last += 1
            inode = Inode(self._last, number_of(node), node, parent.number)
            self._by_ino[self._last] = self._by_key[key] = inode
        else:
            inode.node = node
            inode.parent_number = parent.number
        inode.lookups += 1
        return inode

    def forget(self, ino: int, count: int) -> None:
        """Give back lookups."""
        inode = self._by_ino.get(ino)
        if inode is None or ino == ROOT:
            return
        inode.lookups -= count
        if inode.lookups <= 0:
            del self._by_ino[ino]
            self._drop_key(inode)

    def forget_all(self) -> None:
        """The consumer is gone."""
        self._by_ino = {ROOT: self.root}
        self._by_key = {self.root.node.key: self.root}

    def remove(self, node: Node) -> None:
        """The node lost its last name: another with its key is another inode."""
        inode = self._by_key.get(node.key)
        if inode is not None and inode is not self.root:
            inode.removed = True
            self._drop_key(inode)

    def move(self, node: Node, to: Node, parent: Inode) -> None:
        """`node` is called otherwise, and is `to` from now on."""
        inode = self._by_key.get(node.key)
        if inode is None:
            return
        self._drop_key(inode)
        inode.node, inode.parent_number = to, parent.number
        self._by_key.setdefault(to.key, inode)

    def _drop_key(self, inode: Inode) -> None:
        key = inode.node.key
        if self._by_key.get(key) is inode:
            del self._by_key[key]
