"""Files made whole in a new humfs: contents first, then one row that is never changed again.

That is for a filesystem that counts only once all of it is there. Nothing of it is in the journal, and its rows are
inserted many at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from humfs.core import Core
from humfs.creation import room_for_inode
from humfs.host import DIRECTORY_MODE, FILE_MODE
from humfs.inodes import DIRECTORY_BLOCKS, DIRECTORY_SIZE, Inode
from humfs.store import Row
from umlfs.host.names import check_name

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Fill = Callable[[int], None]
"""Writes a file's contents to the descriptor that it is given."""


@dataclass(slots=True)
class Making:
    """What a new file is to be like."""

    mode: int
    """Type and permission bits."""
    uid: int
    gid: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    target: bytes = b""
    """Of a symlink."""
    fill: Fill | None = None
    """Of a regular file that is not empty."""


def make_whole(core: Core, parent: int, name: bytes, making: Making) -> int:
    """Make a file of any type, without extended attributes, and return its inode number. EEXIST if the name is
    taken, ENOSPC; nothing of it is left then."""
    check_name(name)
    directory = core.directory(parent)
    is_directory = stat.S_ISDIR(making.mode)
    room_for_inode(core, DIRECTORY_BLOCKS if is_directory else 0)
    place = core.host.directories.get(parent)
    found = _on_host(place, name, making)
    now = time.time_ns()
    ino = core.store.next_ino
    core.store.next_ino = ino + 1
    size, blocks = (DIRECTORY_SIZE, DIRECTORY_BLOCKS) if is_directory else (found.st_size, found.st_blocks)
    if not (is_directory or stat.S_ISREG(making.mode)):
        blocks = 0
    owner_and_links = (making.mode, making.uid, making.gid, making.rdev, 2 if is_directory else 1)
    row = (ino, *owner_and_links, size, blocks, making.atime_ns, making.mtime_ns, now, 0, found.st_ino)
    core.store.add_whole(row, parent, name)
    core.used_inodes += 1
    core.volume.used += blocks << 9
    if is_directory:
        core.host.directories.add(parent, ino, name)
        directory.nlink += 1
        core.volume.changed.add(ino)
        core.cache.add(Inode(Row._make(row), parent, name))
        if len(core.inodes) > core.cache.most:
            core.put_out()
    core.names_changed(directory, now)
    return ino


def _on_host(place: int, name: bytes, making: Making) -> os.stat_result:
    """Make it in the directory behind `place`."""
    if stat.S_ISDIR(making.mode):
        os.mkdir(name, DIRECTORY_MODE, dir_fd=place)
    elif stat.S_ISLNK(making.mode):
        os.symlink(making.target, name, dir_fd=place)
    else:
        return _file_on_host(place, name, making.fill)
    return os.stat(name, dir_fd=place, follow_symlinks=False)


def _file_on_host(place: int, name: bytes, fill: Fill | None) -> os.stat_result:
    fd = os.open(name, _CREATE, FILE_MODE, dir_fd=place)
    try:
        if fill is not None:
            fill(fd)
        return os.fstat(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=place)
        raise
    finally:
        os.close(fd)
