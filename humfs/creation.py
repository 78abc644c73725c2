"""What a new inode inherits, and how it comes to be a row and an inode in memory."""

from __future__ import annotations

import errno
import os
import stat
import time

from humfs import acl
from humfs import store as sql
from humfs.core import Core
from humfs.inodes import DIRECTORY_BLOCKS, Inode
from humfs.journal import Change
from humfs.store import Row
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure


def room_for_inode(core: Core, blocks: int) -> None:
    """ENOSPC unless there is room for one more inode that takes `blocks`."""
    if core.used_inodes >= core.inodes_max or core.volume.used + (blocks << 9) > core.volume.superblock.total:
        raise failure(errno.ENOSPC)


def inherit(
    core: Core, directory: Inode, mode: int, umask: int, caller: Caller
) -> tuple[int, int, int, list[tuple[bytes, bytes]]]:
    """Mode, uid, gid and access control lists of what `caller` creates in `directory` with `mode`."""
    gid = caller.gid
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
    if stat.S_ISLNK(mode):
        return mode, caller.uid, gid, []
    inherits = directory.xattrs and core.traits.posix_acl
    default = core.store.xattr(directory.ino, acl.DEFAULT) if inherits else None
    if default is None:
        return mode & ~(umask & 0o777), caller.uid, gid, []
    entries, mode = acl.inherit(acl.decode(default), mode)
    lists = [] if acl.is_minimal(entries) else [(acl.ACCESS, acl.encode(entries))]
    if stat.S_ISDIR(mode):
        lists.append((acl.DEFAULT, default))
    return mode, caller.uid, gid, lists


def add_inode(
    core: Core,
    directory: Inode,
    name: bytes,
    mode: int,
    rdev: int,
    found: os.stat_result,
    owner: tuple[int, int],
    lists: list[tuple[bytes, bytes]],
) -> Inode:
    """The inode of a file that was just made on the host."""
    now = time.time_ns()
    is_directory = stat.S_ISDIR(mode)
    ino = core.store.next_ino
    core.store.next_ino += 1
    row = Row(
        ino,
        mode,
        *owner,
        rdev,
        2 if is_directory else 1,
        4096 if is_directory else found.st_size,
        DIRECTORY_BLOCKS if is_directory else 0,
        now,
        now,
        now,
        1 if lists else 0,
        found.st_ino,
    )
    changes: list[Change] = [(sql.ADD_INODE, tuple(row)), (sql.ADD_NAME, (directory.ino, name, ino))]
    changes += ((sql.PUT_XATTR, (ino, xattr, value)) for xattr, value in lists)
    if is_directory:
        directory.nlink += 1
        changes.append((sql.PUT_INODE, directory.values()))
    core.apply(*changes)
    core.used_inodes += 1
    if is_directory:
        core.volume.used += DIRECTORY_BLOCKS << 9
        core.volume.changed.add(ino)
        core.host_caches.add(ino)
    core.volume.used += sum(len(xattr) + len(value) for xattr, value in lists)
    core.names_changed(directory, now)
    inode = Inode(row, directory.ino, name)
    core.cache.add(inode)
    if len(core.inodes) > core.cache.most:
        core.put_out()
    return inode
