"""The one adapter from `Filesystem` to `pyfuse3.Operations`.

What pyfuse3 has no request for (O_TMPFILE, syncfs) the kernel does without, as it does for any filesystem that lacks
them; docs/mounting.md tells how that looks. Others that it does not have are in `umlfs.mount.locks` and `space`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import FUSEError

from umlfs.filesystem import NO_HANDLE, Caller, Entry, Filesystem, Opened, SetAttr
from umlfs.fuse.announcer import HANDLE, Announcer
from umlfs.mount.attributes import NAMES_ALONE, from_attr, from_entry, from_statfs, of_dirent
from umlfs.mount.read_buffers import ReadBuffers
from umlfs.mount.session import STATUS

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LISTED_MAX: Final = 30.0
"""Seconds for which a listing saves the next one the attributes: the kernel may have dropped some meanwhile."""
_ERRNO_MAX: Final = 512
"""The kernel takes error numbers below this one only; larger ones are its own."""


def errno_of(error: OSError) -> int:
    """What the kernel is told of an error."""
    number = error.errno or errno.EIO
    return number if 0 < number < _ERRNO_MAX else errno.EIO


def _answering(
    operation: Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]]:
    """A request whose failures are told to the kernel: any other exception would end the mount."""

    async def answer(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.requests += 1
        self.under_way += 1
        try:
            if self.fs.failure is not None:
                raise FUSEError(errno.EIO)
            return await operation(self, *args, **kwargs)
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(errno_of(error)) from None
        except Exception:
            log.exception("%s failed", operation.__name__)
            raise FUSEError(errno.EIO) from None
        finally:
            self.under_way -= 1

    return answer


class File:
    """An open file or directory, as the kernel knows it."""

    __slots__ = ("flock_owner", "handle", "ino", "plus", "valid_until")

    def __init__(self, ino: int, handle: int) -> None:
        self.ino = ino
        self.handle = handle
        self.flock_owner: int | None = None
        """Who may hold a flock(2) by it, which ends with it."""
        self.plus = True
        """Of a directory: whether its listing tells attributes."""
        self.valid_until = 0.0
        """Of such a listing: until when (monotonic seconds) the kernel believes all names told by it."""


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid)


class Adapter(pyfuse3.Operations):
    """`filesystem` as the operations of a mount."""

    supports_dot_lookup = False

    def __init__(self, filesystem: Filesystem, status: Callable[[Adapter], bytes] | None = None) -> None:
        """`status` is what reading the extended attribute `STATUS` of the root gives."""
        super().__init__()
        traits = filesystem.traits
        self.fs = filesystem
        self.requests = 0
        """How many requests were answered; forgets need no answer and are not counted."""
        self.under_way = 0
        """How many requests are being worked on."""
        self.enable_writeback_cache = traits.writeback and not traits.read_only
        self.enable_acl = traits.posix_acl
        self._status = status
        self.open_files: dict[int, File] = {}
        """By the handles that the kernel has."""
        self._next = 1
        self._read_buffers = ReadBuffers()
        self.announcer: Announcer | None = None
        self.announcer_pid = 0
        """The process that repeats changes; its requests change nothing."""
        self._listed: dict[int, float] = {}
        """Directories of which the kernel knows every name with its attributes, and until when."""

    def _keep(self, ino: int, handle: int) -> pyfuse3.FileHandleT:
        number = self._next
        self._next += 1
        self.open_files[number] = File(ino, handle)
        return pyfuse3.FileHandleT(number)

    def _announcer(self, ctx: pyfuse3.RequestContext) -> Announcer | None:
        """Who answers a request in the filesystem's place, if it is the announcer's."""
        return self.announcer if ctx.pid == self.announcer_pid else None

    def _refuse_announcer(self, ctx: pyfuse3.RequestContext) -> None:
        if self._announcer(ctx):
            raise FUSEError(errno.EPERM)

    # Names ------------------------------------------------------------------------------------

    @_answering
    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if announcer := self._announcer(ctx):
            return from_entry(await announcer.lookup(parent, name))
        return from_entry(await self.fs.lookup(parent, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        forget = self.fs.forget
        for ino, count in inode_list:
            forget(ino, count)
            self._listed.pop(ino, None)

    @_answering
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if announcer := self._announcer(ctx):
            return from_entry(await announcer.make(parent, name))
        return from_entry(await self.fs.mknod(parent, name, mode, rdev, ctx.umask, _caller(ctx)))

    @_answering
    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if announcer := self._announcer(ctx):
            return from_entry(await announcer.make(parent, name))
        return from_entry(await self.fs.mkdir(parent, name, mode & 0o7777, ctx.umask, _caller(ctx)))

    @_answering
    async def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if announcer := self._announcer(ctx):
            return from_entry(await announcer.make(parent, name))
        return from_entry(await self.fs.symlink(parent, name, target, _caller(ctx)))

    @_answering
    async def readlink(self, ino: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        return pyfuse3.FileNameT(await self.fs.readlink(ino))

    @_answering
    async def link(
        self, ino: int, new_parent: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._refuse_announcer(ctx)
        return from_entry(await self.fs.link(ino, new_parent, new_name))

    @_answering
    async def unlink(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if announcer := self._announcer(ctx):
            announcer.remove(parent, name)
            return
        await self.fs.unlink(parent, name)

    @_answering
    async def rmdir(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if announcer := self._announcer(ctx):
            announcer.remove(parent, name)
            return
        await self.fs.rmdir(parent, name)

    @_answering
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: pyfuse3.RequestContext
    ) -> None:
        if announcer := self._announcer(ctx):
            announcer.rename(parent, name, new_parent, new_name)
            return
        await self.fs.rename(parent, name, new_parent, new_name, flags)

    # Attributes -------------------------------------------------------------------------------

    @_answering
    async def getattr(self, ino: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        announcer = self._announcer(ctx)
        attr, valid = await (announcer.getattr(ino) if announcer else self.fs.getattr(ino))
        return from_attr(ino, attr, valid)

    @_answering
    async def setattr(
        self,
        ino: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if announcer := self._announcer(ctx):
            return from_attr(ino, *await announcer.getattr(ino))
        changes = SetAttr(
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
        )
        handle = NO_HANDLE if fh is None else self.open_files[fh].handle
        changed, valid = await self.fs.setattr(ino, changes, handle, _caller(ctx))
        return from_attr(ino, changed, valid)

    @_answering
    async def access(self, ino: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        await self.fs.access(ino, mode, _caller(ctx))
        return True

    @_answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return from_statfs(await self.fs.statfs())

    @_answering
    async def getxattr(self, ino: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name == STATUS and self._status is not None:
            self.requests -= 1
            return self._status(self)
        try:
            return await self.fs.getxattr(ino, name)
        except OSError as error:
            if error.errno != errno.ENOSYS or self._status is None:
                raise
            # Upon ENOSYS the kernel would never ask again, not for the status either.
            raise FUSEError(errno.EOPNOTSUPP) from None

    @_answering
    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """pyfuse3 looks itself whether there is one, where the caller said XATTR_CREATE or XATTR_REPLACE."""
        self._refuse_announcer(ctx)
        await self.fs.setxattr(ino, name, value)

    @_answering
    async def listxattr(self, ino: int, ctx: pyfuse3.RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        return list(map(pyfuse3.XAttrNameT, await self.fs.listxattr(ino)))

    @_answering
    async def removexattr(self, ino: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._refuse_announcer(ctx)
        await self.fs.removexattr(ino, name)

    # Files ------------------------------------------------------------------------------------

    def _info(self, ino: int, opened: Opened) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(
            fh=self._keep(ino, opened.handle),
            direct_io=opened.direct,
            keep_cache=opened.keep_cache,
            nonseekable=opened.stream,
        )

    @_answering
    async def open(self, ino: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if announcer := self._announcer(ctx):
            return self._info(ino, announcer.open())
        try:
            opened = await self.fs.open(ino, flags)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            # As the kernel does upon ENOSYS; pyfuse3 cannot tell a file by anything but a handle.
            opened = Opened(NO_HANDLE, keep_cache=True)
            if flags & os.O_TRUNC:
                await self.fs.setattr(ino, SetAttr(size=0), caller=_caller(ctx))
        return self._info(ino, opened)

    @_answering
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._refuse_announcer(ctx)
        entry, opened = await self.fs.create(parent, name, mode & 0o7777, flags, ctx.umask, _caller(ctx))
        return self._info(entry.ino, opened), from_entry(entry)

    @_answering
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self.open_files[fh]
        view = self._read_buffers.take(size)
        count = await self.fs.read_into(file.ino, file.handle, off, [view])
        return cast(bytes, view[:count])  # any buffer will do

    @_answering
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self.open_files[fh]
        return await self.fs.write_from(file.ino, file.handle, off, [memoryview(buf)])

    @_answering
    async def flush(self, fh: int) -> None:
        file = self.open_files[fh]
        if file.handle == HANDLE:
            return
        try:
            await self.fs.flush(file.ino, file.handle)
        except OSError as error:
            # Upon ENOSYS the kernel would never tell of a closed file again, with which its user's locks end.
            if error.errno != errno.ENOSYS or not self.fs.traits.locks:
                raise

    @_answering
    async def release(self, fh: int) -> None:
        file = self.open_files.pop(fh)
        if file.handle and file.handle != HANDLE:
            if file.flock_owner is not None:
                self.fs.unlock(file.ino, file.handle, file.flock_owner, whole=True)
            await self.fs.release(file.ino, file.handle)

    @_answering
    async def fsync(self, fh: int, datasync: bool) -> None:
        file = self.open_files[fh]
        await self.fs.fsync(file.ino, file.handle, datasync)

    # Directories ------------------------------------------------------------------------------

    @_answering
    async def opendir(self, ino: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        try:
            handle = (await self.fs.opendir(ino)).handle
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            handle = NO_HANDLE
        return self._keep(ino, handle)

    @_answering
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """pyfuse3 only knows listings with attributes. Where the kernel has them all already, it gets names alone."""
        file = self.open_files[fh]
        reply = pyfuse3.readdir_reply
        if not start_id:
            file.plus = not NAMES_ALONE or self._listed.get(file.ino, 0.0) < monotonic()
            file.valid_until = monotonic() + _LISTED_MAX
        given = 0

        def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            nonlocal given
            if entry is None:
                if not NAMES_ALONE and name not in (b".", b".."):
                    return True  # it vanished meanwhile
                attributes = of_dirent(ino, mode)
            else:
                attributes = from_entry(entry)
                file.valid_until = min(file.valid_until, started + entry.entry_valid_ns / 1e9)
            given += 1
            return reply(token, pyfuse3.FileNameT(name), attributes, offset)

        started = monotonic()
        await self.fs.readdir(file.ino, file.handle, start_id, add, plus=file.plus)
        if file.plus and not given:
            self._listed[file.ino] = file.valid_until

    @_answering
    async def releasedir(self, fh: int) -> None:
        file = self.open_files.pop(fh)
        if file.handle:
            await self.fs.releasedir(file.ino, file.handle)

    @_answering
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        file = self.open_files[fh]
        await self.fs.fsyncdir(file.ino, file.handle, datasync)
