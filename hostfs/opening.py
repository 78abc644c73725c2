"""How files of the host are opened: verified, never waiting for anyone, with as much access as is permitted."""

from __future__ import annotations

import errno
import os
import stat
from time import monotonic
from typing import Final

from hostfs.descriptors import READ, WRITE
from hostfs.inodes import Inode
from hostfs.resolver import Resolver, reopen
from umlfs.host.syscalls import How, failure

SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Nothing here ever waits for the other end of a pipe, or takes a terminal."""
_MODES: Final = {READ: os.O_RDONLY, WRITE: os.O_WRONLY, READ | WRITE: os.O_RDWR}
_OPEN: Final = {access: How(mode | SAFE) for access, mode in _MODES.items()}
_OPEN_QUIETLY: Final = {access: How(mode | SAFE | os.O_NOATIME) for access, mode in _MODES.items()}
"""For an export that must not change: reading leaves no trace."""
_ELSEWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
"""Errors that tell of a name that leads to something else than a regular file by now."""


def not_a_file(inode: Inode) -> OSError:
    """The error for opening `inode`. Only regular files are opened: of the rest, nothing on the host is for guests."""
    if inode.kind == stat.S_IFREG:
        return failure(errno.EACCES)
    return failure(errno.EISDIR if inode.kind == stat.S_IFDIR else errno.EINVAL)


class Opener:
    """Opens regular files. `access` is `READ`, `WRITE` or both."""

    def __init__(self, resolver: Resolver, *, quietly: bool) -> None:
        """With `quietly` reading does not change the time of last access, where that is permitted."""
        self._resolver = resolver
        self._hows = _OPEN_QUIETLY if quietly else _OPEN
        """How files are opened, by access."""

    async def reach(self, inode: Inode, access: int) -> int:
        """The descriptor that `inode` holds, good for `access`; valid until the next await or the next descriptor is
        held."""
        if inode.access & access == access and inode.fd >= 0:
            inode.used = True
            return inode.fd
        try:
            return self._held(inode, access, False)
        except BlockingIOError:
            await self._resolver.fill_caches(inode)
            return self._held(inode, access, True)

    async def open(self, inode: Inode, needed: int) -> tuple[int, int]:
        """A new descriptor, the caller's to close, and what it is good for: reading too, where that is permitted, and
        what the inode is open for already.

        A consumer that gathers writes also reads what it writes to, so as to fill up pages."""
        wanted = needed | READ | (inode.access if inode.opens else 0)
        try:
            return self._open(inode, needed, wanted, False)
        except BlockingIOError:
            await self._resolver.fill_caches(inode)
            return self._open(inode, needed, wanted, True)

    def _held(self, inode: Inode, access: int, wait: bool) -> int:
        """A descriptor of `inode`, now held, good for `access` besides what the one held was good for."""
        fd, got = self._open(inode, access, access | inode.access, wait)
        if inode.opens and inode.access & ~got:
            os.close(fd)
            raise failure(errno.EACCES)  # what others have it open for cannot be had with it
        self._resolver.descriptors.hold(inode, fd, got)
        return fd

    def _open(self, inode: Inode, needed: int, wanted: int, wait: bool) -> tuple[int, int]:
        """A new descriptor for what is wanted, or what is needed if more is not permitted; and what it is good for."""
        try:
            return self._open_verified(inode, self._hows[wanted], wait), wanted
        except PermissionError:
            self._hows = _OPEN  # O_NOATIME is for owners only
        try:
            return self._open_verified(inode, _OPEN[wanted], wait), wanted
        except PermissionError:
            if wanted == needed:
                raise
            return self._open_verified(inode, _OPEN[needed], wait), needed

    def _open_verified(self, inode: Inode, how: How, wait: bool) -> int:
        resolver = self._resolver
        if inode.kind != stat.S_IFREG or inode.pseudo:
            raise not_a_file(inode)
        parent = inode.parent
        if inode.fd < 0 and parent is not None:
            directory = parent.fd if parent.fd >= 0 else resolver.open(parent, wait)
            try:
                fd = resolver.open_name(directory, inode.name, how, wait or parent.cached_until > monotonic())
            except OSError as error:
                if error.errno not in _ELSEWHERE:
                    raise
            else:
                if resolver.verified(inode, parent, fd):
                    return fd
        held = inode.fd if inode.fd >= 0 else resolver.open(inode, wait)
        return resolver.descriptors.open_with(reopen, held, how.open_flags)
