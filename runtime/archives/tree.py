"""The names of a tree that is being written: who is where, and how a path of an archive leads there.

As `humfs.importer` does it: paths stay within the tree, and a symlink on the way to a name is followed within it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from humfs.importer import SYMLINKS_MAX, Path
from umlfs.host.syscalls import failure


@dataclass(slots=True, eq=False)
class ArchiveNode:
    """A file that has a name, or several."""

    ino: int
    kind: int
    """The type bits of its mode."""
    children: dict[bytes, ArchiveNode] | None = None
    """Of a directory."""
    target: bytes = b""
    """Of a symlink."""
    names: int = 1


@dataclass(slots=True)
class ArchiveTree:
    """A tree below `root`."""

    root: ArchiveNode
    make: Callable[[], ArchiveNode]
    """Makes a directory that an archive has files in without having it."""
    _known: dict[Path, ArchiveNode] = field(default_factory=dict)

    def find(self, path: Path) -> ArchiveNode | None:
        """What is at `path`, the last component not followed; None if there is nothing."""
        if not path:
            return self.root
        try:
            return self._children(self._walk(path[:-1], make=False)).get(path[-1])
        except FileNotFoundError:
            return None

    def parent(self, path: Path) -> dict[bytes, ArchiveNode]:
        """The contents of the directory that is to have the last component of `path`; made if missing. OSError."""
        directory = path[:-1]
        known = self._known.get(directory)
        if known is None:
            known = self._known[directory] = self._walk(directory, make=True)
        return self._children(known)

    def forget(self) -> None:
        """A directory or a symlink is gone: what was found by way of it is to be looked for again."""
        self._known.clear()

    def _walk(self, path: Path, make: bool) -> ArchiveNode:
        trail = [self.root]
        pending = list(reversed(path))
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                trail = trail[:-1] or [self.root]
                continue
            children = self._children(trail[-1])
            node = children.get(name)
            if node is None:
                if not make:
                    raise failure(errno.ENOENT)
                node = children[name] = self.make()
            if node.target:
                links += 1
                if links > SYMLINKS_MAX:
                    raise failure(errno.ELOOP)
                if node.target.startswith(b"/"):
                    trail = [self.root]
                pending += [part for part in reversed(node.target.split(b"/")) if part not in (b"", b".")]
            else:
                self._children(node)
                trail.append(node)
        return trail[-1]

    @staticmethod
    def _children(node: ArchiveNode) -> dict[bytes, ArchiveNode]:
        if node.children is None:
            raise failure(errno.ENOTDIR)
        return node.children


def walk(node: ArchiveNode) -> Iterator[ArchiveNode]:
    """A node and all below it; one with several names comes as often."""
    pending = [node]
    while pending:
        found = pending.pop()
        yield found
        if found.children:
            pending += found.children.values()
