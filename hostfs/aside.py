"""Directories of the host that are never touched: mount points whose servers may be waiting for us."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from hostfs.inodes import Inode, Key
from umlfs.host.syscalls import failure


class SetAside:
    """Names that are not shown, and cannot change. They are known by the directory they are in, and their name."""

    def __init__(self) -> None:
        self.names: frozenset[tuple[Key, bytes]] = frozenset()

    def add(self, paths: Iterable[Path]) -> None:
        """Set these aside. Their parents are looked at now; a path whose parent is not there means nothing."""
        known = set(self.names)
        for path in paths:
            with contextlib.suppress(OSError):
                parent = path.parent.stat()
                known.add(((parent.st_dev, parent.st_ino), os.fsencode(path.name)))
        self.names = frozenset(known)

    def has(self, directory: Inode, name: bytes) -> bool:
        """Whether `name` in `directory` is set aside."""
        return bool(self.names) and (directory.key[:2], name) in self.names

    def check(self, directory: Inode, name: bytes) -> None:
        """EBUSY if the name cannot change."""
        if self.has(directory, name):
            raise failure(errno.EBUSY)
