"""Files: open, create, read, write, and the space they take.

Without handles (`open` answers ENOSYS) a file is read and written through a descriptor that its inode holds for
now, and gets again through its name. With handles each `open` has a descriptor of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Final

from hostfs.aside import SetAside
from hostfs.descriptors import READ, WRITE
from hostfs.entries import Entries
from hostfs.handles import Handles
from hostfs.inodes import Inode
from hostfs.locks import SHARED_MEMORY, Locks
from hostfs.opening import SAFE, Opener, not_a_file
from hostfs.ownership import Ownership, drop_set_id
from hostfs.resolver import Resolver
from hostfs.settings import Cache, Settings
from umlfs.blocks import sparse
from umlfs.blocks.page_cache import INLINE_WRITE, read_now
from umlfs.buffers import part, total
from umlfs.filesystem import NO_HANDLE, Caller, Entry, FileOperations, Lock, Opened
from umlfs.host import syscalls
from umlfs.host.names import check_name
from umlfs.host.syscalls import failure

_ACCESS: Final = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}

Buffers = Sequence[memoryview]


class Files(FileOperations):
    """The operations on files; see `Filesystem` for each."""

    def __init__(
        self,
        resolver: Resolver,
        settings: Settings,
        entries: Entries,
        ownership: Ownership,
        aside: SetAside,
        opener: Opener,
        handles: Handles,
        locks: Locks,
    ) -> None:
        self._resolver = resolver
        self._settings = settings
        self._entries = entries
        self._ownership = ownership
        self._aside = aside
        self._opener = opener
        self._handles = handles
        self._locks = locks
        self._nodes = resolver.table.nodes
        self._in_memory = resolver.devices.in_memory

    # Opening ----------------------------------------------------------------------------------

    def _opened(self, inode: Inode, fd: int, access: int) -> Opened:
        """`fd` is open for `access`, and `inode`'s from now on."""
        return self._told(self._handles.add(inode, fd, access))

    def _told(self, handle: int) -> Opened:
        # With AUTO the consumer drops what it has cached once it finds size or mtime changed.
        never = self._settings.cache is Cache.NEVER
        return Opened(handle, keep_cache=not never, direct=never)

    async def open(self, ino: int, flags: int) -> Opened:
        if self._settings.stateless:
            raise failure(errno.ENOSYS)
        inode = self._resolver.node(ino)
        needed = _ACCESS.get(flags & os.O_ACCMODE, READ)
        if needed & WRITE or flags & os.O_TRUNC:
            self._settings.check_writable()
        if flags & os.O_TRUNC:
            needed |= WRITE
        self._handles.check_room(inode)
        if inode.opens and not needed & ~inode.access:
            opened = self._told(self._handles.share(inode))
        else:
            opened = self._opened(inode, *await self._opener.open(inode, needed))
        opened.quiet_close = not needed & WRITE
        if needed & WRITE and inode.name.endswith(SHARED_MEMORY):
            self._guard(opened.handle)
        fd = self._handles.get(opened.handle).fd
        if flags & os.O_TRUNC:
            os.ftruncate(fd, 0)
        if self._settings.append:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        return opened

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        check_name(name)
        self._settings.check_writable()
        resolver = self._resolver
        directory = resolver.node(parent)
        self._aside.check(directory, name)
        if not self._settings.stateless:
            self._handles.check_room()
        place = directory.fd if directory.fd >= 0 else await resolver.reach(directory)
        try:
            fd = resolver.descriptors.open_with(_create, place, name, mode)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return await self._open_existing(directory, name, flags)
        try:
            found = self._ownership.adopt(fd, os.fstat(fd), place, mode, caller)
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=place)
            raise
        inode = self._entries.born(directory, name, found)
        if self._settings.stateless:
            resolver.descriptors.hold(inode, fd, READ | WRITE)
            opened = Opened(NO_HANDLE, keep_cache=True)
        else:
            opened = self._opened(inode, fd, READ | WRITE)
            opened.quiet_close = bool(flags & os.O_EXCL)
            if name.endswith(SHARED_MEMORY):
                self._guard(opened.handle)
        return self._entries.entry(inode, found), opened

    async def _open_existing(self, directory: Inode, name: bytes, flags: int) -> tuple[Entry, Opened]:
        found = await self._entries.stat_name(directory, name)
        inode = self._entries.found(directory, name, found)
        entry = self._entries.entry(inode, found)
        try:
            if inode.kind != stat.S_IFREG or inode.pseudo:
                raise not_a_file(inode)
            if self._settings.stateless:
                opened = Opened(NO_HANDLE, keep_cache=True)
                if flags & os.O_TRUNC:
                    os.ftruncate(await self._opener.reach(inode, WRITE), 0)
            else:
                opened = await self.open(inode.node, flags)
            fd = self._handles.get(opened.handle).fd if opened.handle else await self._resolver.reach(inode)
            entry.attr = self._entries.attr(os.fstat(fd))
        except OSError:
            self._resolver.forget(inode.node, 1)
            raise
        return entry, opened

    async def release(self, ino: int, handle: int) -> None:
        released = self._handles.release(handle)
        if released is None:
            return
        for owner in released.owners or ():
            self._locks.free(released.inode, owner)
        if not released.inode.opens:
            self._locks.unguard(released.inode)

    def _guard(self, handle: int) -> None:
        """See `Locks.guard`; the handle is given up if that fails."""
        try:
            self._locks.guard(self._handles.get(handle))
        except OSError:
            self._handles.release(handle)
            raise

    # Locks ------------------------------------------------------------------------------------

    async def getlk(self, ino: int, handle: int, owner: int, lock: Lock) -> Lock | None:
        self._check_locks()
        return self._locks.find(self._handles.get(handle), owner, lock)

    async def setlk(self, ino: int, handle: int, owner: int, lock: Lock, wait: bool = False) -> None:
        self._check_locks()
        file = self._handles.get(handle)
        file.owners = file.owners or set()
        file.owners.add(owner)
        await self._locks.take(file, owner, lock, wait)

    async def flock(self, ino: int, handle: int, owner: int, kind: int, wait: bool = False) -> None:
        self._check_locks()
        await self._locks.take(self._handles.get(handle), owner, Lock(kind), wait, whole=True)

    def _check_locks(self) -> None:
        if not self._settings.locks:
            raise failure(errno.ENOSYS)

    def unlock(self, ino: int, handle: int, owner: int, whole: bool = False) -> None:
        with contextlib.suppress(OSError):
            self._locks.free(self._handles.get(handle).inode, owner, whole=whole)

    # Contents ---------------------------------------------------------------------------------

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Buffers) -> int:
        if handle:
            open_file = self._handles.get(handle)
            inode, fd = open_file.inode, open_file.fd
        else:
            found = self._nodes.get(ino)
            if found is None:
                raise failure(errno.ESTALE)
            inode = found
            if inode.access & READ and inode.kind == stat.S_IFREG:
                inode.used = True
                fd = inode.fd
            else:
                fd = await self._opener.reach(inode, READ)
        done = read_now(fd, buffers, offset, 0 if inode.key[0] in self._in_memory else os.RWF_NOWAIT)
        if done is None:
            done = 0
        elif not done or done == sum(map(len, buffers)) or offset + done >= os.fstat(fd).st_size:
            return done
        rest = part(buffers, done, total(buffers) - done)
        return done + await self._resolver.in_thread(fd, lambda copy: sparse.read_into(copy, offset + done, rest))

    async def write_from(self, ino: int, handle: int, offset: int, buffers: Buffers, kill_set_id: bool = False) -> int:
        if self._settings.read_only:
            raise failure(errno.EROFS)
        if handle:
            fd = self._handles.get(handle).fd
        else:
            inode = self._nodes.get(ino)
            if inode is None:
                raise failure(errno.ESTALE)
            if inode.access & WRITE:
                inode.used = True
                fd = inode.fd
            else:
                fd = await self._opener.reach(inode, WRITE)
        if kill_set_id:
            drop_set_id(fd)
        size = sum(map(len, buffers))
        if size > INLINE_WRITE:
            return await self._resolver.in_thread(fd, lambda copy: sparse.write_some(copy, offset, buffers))
        if len(buffers) <= sparse.IOV_MAX and (done := os.pwritev(fd, buffers, offset)) == size:
            return done
        return sparse.write_some(fd, offset, buffers)

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        access = 0 if handle else self._resolver.node(ino).access
        fd = await self._descriptor(ino, handle, access or READ)
        await self._resolver.in_thread(fd, os.fdatasync if data_only else os.fsync)

    # Space ------------------------------------------------------------------------------------

    async def _descriptor(self, ino: int, handle: int, access: int) -> int:
        """The handle's, or one that the inode holds for `access`; valid until the next await."""
        if handle:
            return self._handles.get(handle).fd
        return await self._opener.reach(self._resolver.node(ino), access)

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        self._settings.check_writable()
        fd = await self._descriptor(ino, handle, WRITE)
        await self._resolver.in_thread(fd, lambda copy: syscalls.fallocate(copy, mode, offset, length))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise failure(errno.EINVAL)
        fd = await self._descriptor(ino, handle, READ)
        found = os.fstat(fd)
        if not 0 <= offset < found.st_size:
            raise failure(errno.ENXIO)
        if found.st_blocks << 9 >= found.st_size:
            # No holes, or none worth the look at the disk's map.
            return offset if whence == os.SEEK_DATA else found.st_size
        return await self._resolver.in_thread(fd, lambda copy: os.lseek(copy, offset, whence))

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        self._settings.check_writable()
        resolver = self._resolver
        source = resolver.descriptors.open_with(os.dup, await self._descriptor(ino, handle, READ))
        try:
            fd = await self._descriptor(out_ino, out_handle, WRITE)
            return await resolver.in_thread(
                fd, lambda copy: os.copy_file_range(source, copy, length, offset, out_offset)
            )
        finally:
            os.close(source)


def _create(place: int, name: bytes, mode: int) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE, mode & 0o777, dir_fd=place)
