"""Owner and mode of what was just created on the host."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from hostfs.inodes import Inode
from hostfs.resolver import PATH, Resolver, proc_path
from umlfs.filesystem import Caller
from umlfs.host.syscalls import UNCHANGED, chown, failure

_GROUP_EXEC_SET_ID: Final = stat.S_ISGID | stat.S_IXGRP


def _umask() -> int:
    """This process's umask. (`os.umask` could tell only by changing it, for all threads.)"""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777


class Owners:
    """Whose files are shown as whose: those of the user who serves are `owner`'s to the consumer, if one is given."""

    def __init__(self, owner: tuple[int, int] | None = None) -> None:
        """`owner` is a uid and a gid of the consumer."""
        self.uids: dict[int, int] = {}
        """The consumer's numbers, by those of the host where they differ."""
        self.gids: dict[int, int] = {}
        self._meant: tuple[dict[int, int], dict[int, int]] = ({}, {})
        if owner is None:
            return
        for shown, mine, there, back in zip(
            (self.uids, self.gids), (os.geteuid(), os.getegid()), owner, self._meant, strict=True
        ):
            if mine != there:
                shown[mine] = there
                back[there] = mine
                back[mine] = -1

    def meant(self, uid: int | None, gid: int | None) -> tuple[int | None, int | None]:
        """The host's numbers for the consumer's. EPERM for the number of the user who serves, which the consumer has
        for nobody's files."""
        found = self._meant[0].get(uid or 0, uid), self._meant[1].get(gid or 0, gid)
        uid = None if uid is None else found[0]
        gid = None if gid is None else found[1]
        if -1 in (uid, gid):
            raise failure(errno.EPERM)
        return uid, gid


class Ownership:
    """Gives new files to their caller, as far as the user we run as may.

    Files are created without set-id bits, lest they ever stand with the wrong owner; the bits are set last.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._privileged = os.geteuid() == 0
        self._egid = os.getegid()
        self._umask = _umask()

    def adopt(self, fd: int, found: os.stat_result, directory: int, mode: int, caller: Caller) -> os.stat_result:
        """Give what was created just now in `directory` (open as `fd`, and `found` so) to `caller`, with `mode`.

        Returns what it is then."""
        changed = False
        if self._privileged and (found.st_uid != caller.uid or found.st_gid != caller.gid):
            gid = caller.gid
            if found.st_gid != self._egid or os.fstat(directory).st_mode & stat.S_ISGID:
                gid = UNCHANGED  # the directory's
            chown(fd, caller.uid, gid)
            changed = True
        if not stat.S_ISLNK(found.st_mode):
            wanted = mode & 0o7777
            if stat.S_ISDIR(found.st_mode):
                wanted |= found.st_mode & stat.S_ISGID
            if wanted & (self._umask | 0o7000) and wanted != found.st_mode & 0o7777:
                os.chmod(proc_path(fd), wanted)
                changed = True
        return os.fstat(fd) if changed else found

    def adopt_named(self, directory: int, name: bytes, mode: int, caller: Caller) -> os.stat_result:
        """`adopt` for what has no descriptor. What replaced it meanwhile is left alone."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        owned = not self._privileged or (found.st_uid == caller.uid and found.st_gid == caller.gid)
        if owned and (stat.S_ISLNK(found.st_mode) or not mode & (self._umask | 0o7000)):
            return found
        fd = self._resolver.open_name(directory, name, PATH, True)
        try:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_nlink != 1:
                return found
            return self.adopt(fd, found, directory, mode, caller)
        finally:
            os.close(fd)


def drop_set_id(fd: int) -> None:
    """As the host's kernel does for the unprivileged; the capabilities of a file it always drops."""
    mode = os.fstat(fd).st_mode
    kept = mode & ~stat.S_ISUID
    if mode & _GROUP_EXEC_SET_ID == _GROUP_EXEC_SET_ID:
        kept &= ~stat.S_ISGID
    if kept != mode:
        os.chmod(proc_path(fd), stat.S_IMODE(kept))


def change_mode(inode: Inode, fd: int, mode: int) -> None:
    """Set the permission bits of `inode`, open as `fd`, which may be O_PATH."""
    if fd != inode.fd or inode.access:
        os.fchmod(fd, mode)
    else:
        os.chmod(proc_path(fd), mode)


def change_owner(fd: int, uid: int | None, gid: int | None) -> None:
    """Set the owner; None leaves one as it is. EPERM if it would change and may not."""
    try:
        chown(fd, UNCHANGED if uid is None else uid, UNCHANGED if gid is None else gid)
    except PermissionError:
        # Nobody needs a privilege to leave things as they are.
        found = os.fstat(fd)
        if uid not in (None, found.st_uid) or gid not in (None, found.st_gid):
            raise
