"""The inodes that a consumer knows: by number, by what they are on the host, and by the names that lead to them.

An inode holds no descriptor of its own accord. What it is on the host is found again through a name: its parent
inode and one path component. A directory that moves takes its subtree along, since children refer to the parent
*object*, not to a path.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import Final

from umlfs.filesystem import ROOT

Key = tuple[int, ...]
"""Device and inode number on the host; a third number for a directory that is mounted below itself."""

MAX_LINKS: Final = 8
"""How many further names are remembered of a file with hard links. One that loses them all is stale until
it is looked up again, so this bounds memory and nothing else."""


class Inode:
    """A file of the host, as long as the consumer knows its number."""

    __slots__ = (
        "access",
        "answered_at",
        "cached_until",
        "children",
        "fd",
        "host_handle",
        "key",
        "kind",
        "links",
        "locked",
        "lookups",
        "name",
        "node",
        "opens",
        "parent",
        "pinned",
        "pseudo",
        "used",
    )

    def __init__(self, node: int, key: Key, kind: int, parent: Inode | None, name: bytes) -> None:
        self.node = node
        """Its number in the contract; never used again for another."""
        self.key = key
        self.kind = kind
        """File type, the S_IFMT bits."""
        self.parent = parent
        """The directory of the name by which it was found last; None once no name is known, and for the root."""
        self.name = name
        self.links: list[tuple[Inode, bytes]] | None = None
        """Further names, of a file with hard links."""
        self.lookups = 0
        """What `forget` has to give back."""
        self.children = 0
        """How many names of other inodes refer to this one as their parent."""
        self.fd = -1
        """A descriptor held for now, or -1. See `Descriptors`."""
        self.opens = 0
        """How many handles share `fd`, which stays as long as there are any."""
        self.host_handle: bytes | None = None
        """A file handle of the host's kernel, of an inode that held a descriptor: a way back without a name."""
        self.access = 0
        """What `fd` is good for: `READ` and `WRITE`; neither if it is O_PATH."""
        self.used = False
        """`fd` was used since it was last thought of closing it."""
        self.pinned = False
        """No name is left on the host: `fd` is the only way to it."""
        self.locked = 0
        """How many times the consumer has got a lock of it; see `Entries.attr_of`."""
        self.answered_at = 0.0
        """When (monotonic seconds) its attributes were last given to the consumer, who may believe them for a while."""
        self.pseudo = False
        """On a filesystem of the host's kernel, that is shown empty."""
        self.cached_until = 0.0
        """Until when (monotonic seconds) names in this directory are taken to be in the host's caches."""


class InodeTable:
    """All inodes known. Numbers count up and are never given twice."""

    def __init__(self, root_key: Key, closed: Callable[[Inode], None]) -> None:
        """`closed` gives up the descriptor of an inode that leaves the table holding one."""
        self._closed = closed
        self.root = Inode(ROOT, root_key, stat.S_IFDIR, None, b"")
        self.nodes: dict[int, Inode] = {ROOT: self.root}
        self.keys: dict[Key, Inode] = {root_key: self.root}
        self._next = ROOT + 1

    def clear(self) -> None:
        """Forget all but the root. Numbers go on from where they were."""
        root = self.root
        self.nodes.clear()
        self.keys.clear()
        self.nodes[ROOT] = self.keys[root.key] = root
        root.lookups = root.children = 0

    def add(self, key: Key, kind: int, parent: Inode, name: bytes) -> Inode:
        """A new inode, found as `name` in `parent`."""
        inode = Inode(self._next, key, kind, parent, name)
        self._next += 1
        parent.children += 1
        self.nodes[inode.node] = self.keys[key] = inode
        return inode

    def find(self, key: Key, kind: int, links: int, parent: Inode, name: bytes) -> Inode:
        """The inode that `name` in `parent` was just seen to be; a new one if it is not known.

        `links` is how many names it has on the host.
        """
        inode = self.keys.get(key)
        if inode is None:
            return self.add(key, kind, parent, name)
        if inode.name == name and inode.parent is parent and inode.kind == kind:
            return inode
        return self._find_elsewhere(inode, kind, links, parent, name)

    def _find_elsewhere(self, inode: Inode, kind: int, links: int, parent: Inode, name: bytes) -> Inode:
        """`find` for an inode known by other names."""
        if kind == stat.S_IFDIR and self._is_within(parent, inode):
            # A directory mounted somewhere below itself. One object in both places would be its own ancestor.
            return self.find((*inode.key[:2], parent.node), kind, links, parent, name)
        known = inode.links is not None and (parent, name) in inode.links
        if inode.kind != kind or (kind != stat.S_IFDIR and links == 1 and inode.fd < 0 and not known):
            # Removed on the host, and its number used again. A file that somebody renamed looks just the same;
            # then a consumer that still uses the old inode finds it stale, which is better than to mix up two.
            self.dead(inode)
            return self.add(inode.key, kind, parent, name)
        self.name(inode, parent, name)
        return inode

    @staticmethod
    def _is_within(inode: Inode, ancestor: Inode) -> bool:
        step: Inode | None = inode
        while step is not None:
            if step is ancestor:
                return True
            step = step.parent
        return False

    def name(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """`name` in `parent` leads to `inode`, in place of its other names if it is a directory."""
        if inode.name == name and inode.parent is parent:
            return
        if inode.kind == stat.S_IFDIR and self._is_within(parent, inode):
            self._lose(inode)  # moved on the host meanwhile: a lookup finds it again
            return
        former, inode.parent, former_name, inode.name = inode.parent, parent, inode.name, name
        parent.children += 1
        if former is None:
            return
        if inode.kind == stat.S_IFDIR:
            self._drop_child(former)
            return
        links = inode.links = inode.links or []
        if (parent, name) in links:
            links.remove((parent, name))
            parent.children -= 1
        links.append((former, former_name))
        if len(links) > MAX_LINKS:
            self._drop_child(links.pop(0)[0])

    def unname(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """`name` in `parent` does not lead to `inode` (any more)."""
        if inode.name == name and inode.parent is parent:
            if inode.links:
                inode.parent, inode.name = inode.links.pop()
            else:
                inode.parent = None
        elif inode.links and (parent, name) in inode.links:
            inode.links.remove((parent, name))
        else:
            return
        self._drop_child(parent)

    def _lose(self, inode: Inode) -> None:
        """Forget every name of `inode`."""
        for parent, name in list(self.names(inode)):
            self.unname(inode, parent, name)

    def move(self, inode: Inode, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes) -> None:
        """`inode` was renamed."""
        self.name(inode, new_parent, new_name)
        if inode.name != name or inode.parent is not parent:
            self.unname(inode, parent, name)

    def names(self, inode: Inode) -> Iterator[tuple[Inode, bytes]]:
        """Every name known, the latest first."""
        if inode.parent is not None:
            yield inode.parent, inode.name
        yield from reversed(inode.links or ())

    def dead(self, inode: Inode) -> None:
        """The host has freed `inode`, or will once it is closed: its key may soon be another's."""
        if self.keys.get(inode.key) is inode:
            del self.keys[inode.key]

    def _drop_child(self, parent: Inode) -> None:
        parent.children -= 1
        if not parent.children and not parent.lookups:
            self.release(parent)

    def release(self, inode: Inode) -> None:
        """Take `inode`, which nobody knows any more, out of the table, and ancestors kept for its sake alone.

        Does nothing if it is still known.
        """
        idle = [inode]
        while idle:
            step = idle.pop()
            if step.lookups or step.children or step is self.root or self.nodes.pop(step.node, None) is None:
                continue
            self.dead(step)
            if step.fd >= 0:
                self._closed(step)
            for parent, _ in self.names(step):
                parent.children -= 1
                idle.append(parent)
            step.parent = step.links = None
