"""Paths inside a filesystem to its inodes. Symlinks lead where they would if the filesystem were the root."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final

from umlfs.filesystem import ROOT, Attr, Filesystem

LINKS_MAX: Final = 40
"""As many symlinks as Linux follows on one path."""


@dataclass(frozen=True, slots=True)
class Node:
    """An inode that a path led to. Its lookup is counted."""

    path: bytes
    """As it was named or found."""
    ino: int
    """The contract's number."""
    attr: Attr

    @property
    def name(self) -> bytes:
        return self.path.rstrip(b"/").rpartition(b"/")[2]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attr.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.attr.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.attr.mode)


def failure(code: int, path: bytes) -> OSError:
    """An OSError that names the path."""
    return OSError(code, os.strerror(code), path)


async def root_of(filesystem: Filesystem, path: bytes = b"/") -> Node:
    """The root."""
    return Node(path, ROOT, (await filesystem.getattr(ROOT))[0])


async def child(filesystem: Filesystem, parent: Node, name: bytes) -> Node:
    """What `name` is in the directory `parent`. OSError that names its path."""
    path = parent.path.rstrip(b"/") + b"/" + name
    try:
        entry = await filesystem.lookup(parent.ino, name)
    except OSError as error:
        raise failure(error.errno or errno.EIO, path) from None
    if not entry.ino:
        raise failure(errno.ENOENT, path)
    return Node(path, entry.ino, entry.attr)


async def resolve(filesystem: Filesystem, path: bytes, *, follow: bool = True) -> Node:
    """What `path` leads to from the root; `follow` if the last component may be a symlink to follow.

    OSError with the path in it: ENOENT, ENOTDIR, ELOOP.
    """
    trail = [await root_of(filesystem)]
    steps = _steps(path)
    links = 0
    while steps:
        step = steps.pop(0)
        if step == b"..":
            trail = trail[:-1] or trail
            continue
        if not trail[-1].is_directory:
            raise failure(errno.ENOTDIR, trail[-1].path)
        node = await child(filesystem, trail[-1], step)
        if node.is_link and (steps or follow):
            links += 1
            if links > LINKS_MAX:
                raise failure(errno.ELOOP, path)
            target = await filesystem.readlink(node.ino)
            if target.startswith(b"/"):
                trail = trail[:1]
            steps = _steps(target) + steps
            continue
        trail.append(node)
    if path.endswith(b"/") and not trail[-1].is_directory:
        raise failure(errno.ENOTDIR, path)
    return Node(path, trail[-1].ino, trail[-1].attr)


def _steps(path: bytes) -> list[bytes]:
    return [step for step in path.split(b"/") if step not in (b"", b".")]
