"""Files: open, create, read, write, and the space they take.

Without handles (`open` answers ENOSYS) a file is read and written through a descriptor that its inode holds for
now, and gets again through its name. With handles each `open` has a descriptor of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from time import monotonic
from typing import Final

from hostfs.descriptors import READ, WRITE
from hostfs.entries import Entries, check_name
from hostfs.export import Cache, proc_path
from hostfs.inodes import Inode
from umlfs.blocks import sparse
from umlfs.buffers import part, total
from umlfs.filesystem import NO_HANDLE, Caller, Entry, Opened
from umlfs.host import syscalls
from umlfs.host.syscalls import How, failure

INLINE_WRITE: Final = 64 * 1024
"""A write up to this many bytes ends in the host's page cache sooner than in a thread."""

_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Nothing here ever waits for the other end of a pipe, or takes a terminal."""
_MODES: Final = {READ: os.O_RDONLY, WRITE: os.O_WRONLY, READ | WRITE: os.O_RDWR}
OPEN: Final = {access: How(mode | _SAFE) for access, mode in _MODES.items()}
_ACCESS: Final = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}
OPEN_QUIETLY: Final = {access: How(mode | _SAFE | os.O_NOATIME) for access, mode in _MODES.items()}
"""For an export that must not change: reading leaves no trace."""
_ELSEWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
"""Errors that tell of a name that leads to something else than a regular file by now."""
_GROUP_EXEC_SET_ID: Final = stat.S_ISGID | stat.S_IXGRP

_NOT_NOW: Final = (errno.EAGAIN, errno.EOPNOTSUPP)

Buffers = Sequence[memoryview]


class Handle:
    """An open file or directory."""

    __slots__ = ("fd", "inode")

    def __init__(self, inode: Inode, fd: int) -> None:
        self.inode = inode
        self.fd = fd


def _not_a_file(inode: Inode) -> OSError:
    """Only regular files are opened: of the rest, nothing on the host is for guests."""
    if inode.kind == stat.S_IFREG:
        return failure(errno.EACCES)
    return failure(errno.EISDIR if inode.kind == stat.S_IFDIR else errno.EINVAL)


class FileAccess(Entries):
    """How files are opened, with and without handles."""

    _handles: dict[int, Handle]
    _hows: dict[int, How]
    """How files are opened, by `READ` and `WRITE`."""
    _append: bool
    """Whether a file that is opened is written at its end, wherever the consumer says."""

    def _handle(self, number: int) -> Handle:
        handle = self._handles.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def _open_file(self, inode: Inode, access: int, wait: bool) -> int:
        """A descriptor of `inode`, now held, good for `access` besides what the one held was good for."""
        wanted = access | inode.access
        try:
            fd = self._open_verified(inode, self._hows[wanted], wait)
        except PermissionError:
            fd, wanted = self._open_less(inode, access, wanted, wait)
        self._descriptors.hold(inode, fd, wanted)
        return fd

    def _open_less(self, inode: Inode, needed: int, wanted: int, wait: bool) -> tuple[int, int]:
        """What was asked for is not permitted: the same without O_NOATIME (which only owners may use), or for
        less. Returns the descriptor and what it is good for."""
        self._hows = OPEN
        try:
            return self._open_verified(inode, OPEN[wanted], wait), wanted
        except PermissionError:
            if wanted == needed:
                raise
            return self._open_verified(inode, OPEN[needed], wait), needed

    def _open_verified(self, inode: Inode, how: How, wait: bool) -> int:
        """A new descriptor of `inode`."""
        if inode.kind != stat.S_IFREG or inode.pseudo:
            raise _not_a_file(inode)
        parent = inode.parent
        if inode.fd < 0 and parent is not None:
            directory = parent.fd if parent.fd >= 0 else self._open(parent, wait)
            try:
                fd = self._open_name(directory, inode.name, how, wait or parent.warm > monotonic())
            except OSError as error:
                if error.errno not in _ELSEWHERE:
                    raise
            else:
                if self._verified(inode, parent, fd):
                    return fd
        held = inode.fd if inode.fd >= 0 else self._open(inode, wait)
        return self._opened(self._reopen, held, how.open_flags)

    async def _reach_file(self, inode: Inode, access: int) -> int:
        """A descriptor good for `access`, valid until the next await or the next descriptor is held."""
        if inode.access & access == access and inode.fd >= 0:
            inode.used = True
            return inode.fd
        try:
            return self._open_file(inode, access, False)
        except BlockingIOError:
            await self._warm(inode)
            return self._open_file(inode, access, True)

    @staticmethod
    def _drop_set_id(fd: int) -> None:
        """As the host's kernel does for the unprivileged; the capabilities of a file it always drops."""
        mode = os.fstat(fd).st_mode
        kept = mode & ~stat.S_ISUID
        if mode & _GROUP_EXEC_SET_ID == _GROUP_EXEC_SET_ID:
            kept &= ~stat.S_ISGID
        if kept != mode:
            os.chmod(proc_path(fd), stat.S_IMODE(kept))


class Files(FileAccess):
    """The operations on files."""

    _next_handle = 1

    # Handles ----------------------------------------------------------------------------------

    def _new_handle(self, inode: Inode, fd: int) -> Opened:
        if len(self._handles) >= self._handles_max:
            os.close(fd)
            raise failure(errno.EMFILE)
        number = self._next_handle
        self._next_handle += 1
        self._handles[number] = Handle(inode, fd)
        return Opened(number, keep_cache=self._cache is Cache.ALWAYS, direct=self._cache is Cache.NEVER)

    async def open(self, ino: int, flags: int) -> Opened:
        if self._stateless:
            raise failure(errno.ENOSYS)
        inode = self._node(ino)
        needed = _ACCESS.get(flags & os.O_ACCMODE, READ)
        if needed & WRITE or flags & os.O_TRUNC:
            self._writable()
        try:
            fd = self._open_handle(inode, needed, False)
        except BlockingIOError:
            await self._warm(inode)
            fd = self._open_handle(inode, needed, True)
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        if self._append:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        return self._new_handle(inode, fd)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        check_name(name)
        self._writable()
        directory = self._node(parent)
        self._check_place(directory, name)
        place = directory.fd if directory.fd >= 0 else await self._reach(directory)
        try:
            fd = self._opened(self._create, place, name, mode)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return await self._open_existing(directory, name, flags)
        try:
            found = self._adopt(fd, os.fstat(fd), place, mode, caller)
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=place)
            raise
        inode = self._born(directory, name, found)
        if self._stateless:
            self._descriptors.hold(inode, fd, READ | WRITE)
            opened = Opened(NO_HANDLE, keep_cache=True)
        else:
            opened = self._new_handle(inode, fd)
        return self._entry(inode, found), opened

    def _open_handle(self, inode: Inode, needed: int, wait: bool) -> int:
        # A consumer that gathers writes also reads what it writes to, so as to fill up pages.
        wanted = needed | READ
        try:
            return self._open_verified(inode, self._hows[wanted], wait)
        except PermissionError:
            return self._open_less(inode, needed, wanted, wait)[0]

    @staticmethod
    def _create(place: int, name: bytes, mode: int) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, mode & 0o777, dir_fd=place)

    async def _open_existing(self, directory: Inode, name: bytes, flags: int) -> tuple[Entry, Opened]:
        found = await self._stat_name(directory, name)
        inode = self._found(directory, name, found)
        entry = self._entry(inode, found)
        try:
            if inode.kind != stat.S_IFREG:
                raise _not_a_file(inode)
            if self._stateless:
                opened = Opened(NO_HANDLE, keep_cache=True)
                if flags & os.O_TRUNC:
                    os.ftruncate(await self._reach_file(inode, WRITE), 0)
            else:
                opened = await self.open(inode.node, flags)
        except OSError:
            self.forget(inode.node, 1)
            raise
        entry.attr = (await self.getattr(inode.node))[0]
        return entry, opened

    async def release(self, ino: int, handle: int) -> None:
        opened = self._handles.pop(handle, None)
        if opened is None:
            return
        if opened.inode.pinned:
            self._closer.close(opened.fd)
        else:
            os.close(opened.fd)

    # Contents ---------------------------------------------------------------------------------

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> int:
        if handle:
            opened = self._handle(handle)
            inode, fd = opened.inode, opened.fd
        else:
            found = self._nodes.get(ino)
            if found is None:
                raise failure(errno.ESTALE)
            inode = found
            if inode.access & READ and inode.kind == stat.S_IFREG:
                inode.used = True
                fd = inode.fd
            else:
                fd = await self._reach_file(inode, READ)
        flags = 0 if inode.key[0] in self._in_memory else os.RWF_NOWAIT
        try:
            done = os.preadv(fd, buffers, offset, flags)
        except OSError as error:
            if error.errno not in _NOT_NOW and len(buffers) <= sparse.IOV_MAX:
                raise
            done = 0
        else:
            if not done or done == sum(map(len, buffers)) or offset + done >= os.fstat(fd).st_size:
                return done
        rest = part(buffers, done, total(buffers) - done)
        return done + await self._in_thread(fd, lambda copy: sparse.read_into(copy, offset + done, rest))

    async def write_from(self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False) -> int:
        if self._read_only:
            raise failure(errno.EROFS)
        if handle:
            fd = self._handle(handle).fd
        else:
            inode = self._nodes.get(ino)
            if inode is None:
                raise failure(errno.ESTALE)
            if inode.access & WRITE:
                inode.used = True
                fd = inode.fd
            else:
                fd = await self._reach_file(inode, WRITE)
        if kill_set_id:
            self._drop_set_id(fd)
        size = sum(map(len, buffers))
        if size > INLINE_WRITE:
            return await self._in_thread(fd, lambda copy: sparse.write_some(copy, offset, buffers))
        if len(buffers) <= sparse.IOV_MAX and (done := os.pwritev(fd, buffers, offset)) == size:
            return done
        return sparse.write_some(fd, offset, buffers)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        access = 0 if handle else self._node(ino).access
        fd = await self._any_file(ino, handle, access or READ)
        await self._in_thread(fd, os.fdatasync if data_only else os.fsync)

    # Space ------------------------------------------------------------------------------------

    async def _any_file(self, ino: int, handle: int, access: int) -> int:
        return self._handle(handle).fd if handle else await self._reach_file(self._node(ino), access)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        self._writable()
        fd = await self._any_file(ino, handle, WRITE)
        await self._in_thread(fd, lambda copy: syscalls.fallocate(copy, mode, offset, length))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise failure(errno.EINVAL)
        fd = await self._any_file(ino, handle, READ)
        found = os.fstat(fd)
        if not 0 <= offset < found.st_size:
            raise failure(errno.ENXIO)
        if found.st_blocks << 9 >= found.st_size:
            # No holes, or none worth the look at the disk's map.
            return offset if whence == os.SEEK_DATA else found.st_size
        return await self._in_thread(fd, lambda copy: os.lseek(copy, offset, whence))

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        self._writable()
        source = self._opened(os.dup, await self._any_file(ino, handle, READ))
        try:
            fd = await self._any_file(out_ino, out_handle, WRITE)
            return await self._in_thread(fd, lambda copy: os.copy_file_range(source, copy, length, offset, out_offset))
        finally:
            os.close(source)
