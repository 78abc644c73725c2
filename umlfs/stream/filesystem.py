"""`FuseStream`: the Filesystem contract, spoken as FUSE over a connection."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from umlfs.buffers import part, total
from umlfs.filesystem import (
    FOREVER,
    NAME_MAX,
    NO_HANDLE,
    ROOT,
    Attr,
    Caller,
    DirSink,
    Entry,
    Filesystem,
    Opened,
    SetAttr,
    StatFs,
    Traits,
)
from umlfs.stream.connection import StreamConnection, Undo
from umlfs.wire import fuse as wire
from umlfs.wire import stream_replies as replies
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode
from umlfs.wire.stream_replies import Listed, Pending, ProtocolError
from umlfs.wire.stream_requests import CONTENTS_MAX

LISTING: Final = 128 * 1024
"""Bytes of a listing that are asked for at once."""
_ENTRY_MAX: Final = wire.dirent_size(NAME_MAX, plus=True)
PAGES_MAX: Final = 64
"""Listings that are remembered while their readers take them piece by piece."""
VALUE_MAX: Final = 65536
"""Bytes of an extended attribute, or of the names of all."""
TARGET_MAX: Final = 4096


@dataclass(slots=True)
class _Page:
    """What of a listing was read and not yet taken."""

    offset: int
    """Where the next entry follows."""
    entries: list[Listed]
    changes: int
    """What `FuseStream._changes` was when it was read."""
    plus: bool
    last: bool
    """Nothing follows."""


def _unsupported() -> OSError:
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class FuseStream(Filesystem):
    """A filesystem whose server nobody else asks: all that was learned holds until it is changed through here.

    Two things are agreed upon besides FUSE. READ and READDIR need no handle where nothing is changed. And a listing
    with room for another entry has come to its end: there is no need to ask for more.
    """

    def __init__(self, connection: StreamConnection, root: Entry, *, read_only: bool) -> None:
        """`root` is the other end's entry for the root."""
        self.connection = connection
        self.traits = Traits(read_only=read_only, writeback=not read_only)
        self.root = root
        """As the other end has it."""
        self._root = root.ino
        self._pages: dict[tuple[int, int], _Page] = {}
        """By inode and handle."""
        self._changes = 0
        """How many requests may have changed what a listing tells."""

    # Requests ---------------------------------------------------------------------------------

    def _node(self, ino: int) -> int:
        return self._root if ino == ROOT else ino

    async def _ask(
        self,
        opcode: int,
        ino: int,
        *parts: bytes | memoryview,
        caller: Caller | None = None,
        into: Sequence[memoryview] = (),
        limit: int = wire.ENTRY_OUT_SIZE + wire.OPEN_OUT_SIZE,
        undo: Undo | None = None,
    ) -> Pending:
        return await self.connection.ask(
            opcode, self._node(ino), *parts, caller=caller, into=into, limit=limit, undo=undo
        )

    async def _change(
        self,
        opcode: int,
        ino: int,
        *parts: bytes | memoryview,
        caller: Caller | None = None,
        undo: Undo | None = None,
    ) -> Pending:
        """A request that changes something: EROFS where nothing may."""
        if self.traits.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._changes += 1
        return await self._ask(opcode, ino, *parts, caller=caller, undo=undo)

    def _nonsense(self, error: ProtocolError) -> OSError:
        self.connection.lose(f"the other end makes no sense: {error}")
        return OSError(errno.EIO, f"{os.strerror(errno.EIO)}: {self.connection.broken}")

    def _entry(self, data: bytes | bytearray) -> Entry:
        try:
            entry = replies.entry(data)
        except ProtocolError as error:
            raise self._nonsense(error) from None
        if entry.ino == self._root:
            entry.ino = ROOT
        return entry

    def _attr(self, data: bytes | bytearray) -> tuple[Attr, int]:
        try:
            return replies.attr(data), FOREVER
        except ProtocolError as error:
            raise self._nonsense(error) from None

    def _opened(self, data: bytes | bytearray, start: int = 0) -> Opened:
        try:
            return replies.opened(data, start)
        except ProtocolError as error:
            raise self._nonsense(error) from None

    def _count(self, pending: Pending, most: int) -> int:
        try:
            return replies.count(pending.data, most)
        except ProtocolError as error:
            raise self._nonsense(error) from None

    def _forget_answer(self, data: bytearray) -> None:
        self.forget(self._entry(data).ino, 1)

    def _release_answer(self, opcode: Opcode) -> Undo:
        def release(data: bytearray) -> None:
            self.connection.post(opcode, self._root, wire.RELEASE_IN.pack(self._opened(data).handle, 0, 0, 0))

        return release

    # The whole --------------------------------------------------------------------------------

    def disconnect(self) -> None:
        """As the contract says. What other filesystems of the same connection hold is given back too."""
        self._pages.clear()
        self.connection.post(Opcode.DESTROY, 0)

    def remarks(self) -> list[str]:
        return [] if self.connection.broken is None else [self.connection.broken]

    async def close(self) -> None:
        """Does nothing: the connection is its owner's."""

    async def syncfs(self) -> None:
        if not self.traits.read_only:
            await self._ask(Opcode.SYNCFS, ROOT, bytes(8))

    async def statfs(self, ino: int = ROOT) -> StatFs:
        answer = await self._ask(Opcode.STATFS, ino)
        try:
            return replies.statfs(answer.data)
        except ProtocolError as error:
            raise self._nonsense(error) from None

    # Names ------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Entry:
        answer = await self._ask(Opcode.LOOKUP, parent, requests.strings(name), undo=self._forget_answer)
        return self._entry(answer.data)

    def forget(self, ino: int, count: int) -> None:
        if ino != ROOT:
            self.connection.forget(ino, count)

    async def _make(self, opcode: int, parent: int, body: bytes, caller: Caller | None = None) -> Entry:
        answer = await self._change(opcode, parent, body, caller=caller, undo=self._forget_answer)
        return self._entry(answer.data)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int, caller: Caller) -> Entry:
        body = requests.mknod(mode, rdev, umask) + requests.strings(name)
        return await self._make(Opcode.MKNOD, parent, body, caller)

    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, caller: Caller) -> Entry:
        body = wire.MKDIR_IN.pack(mode, umask) + requests.strings(name)
        return await self._make(Opcode.MKDIR, parent, body, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        return await self._make(Opcode.SYMLINK, parent, requests.strings(name, target), caller)

    async def readlink(self, ino: int) -> bytes:
        target = bytes((await self._ask(Opcode.READLINK, ino, limit=TARGET_MAX)).data)
        if not target or b"\0" in target:
            raise self._nonsense(ProtocolError(f"the target {target!r}"))
        return target

    async def link(self, ino: int, new_parent: int, new_name: bytes) -> Entry:
        body = wire.LINK_IN.pack(self._node(ino)) + requests.strings(new_name)
        return await self._make(Opcode.LINK, new_parent, body)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self._change(Opcode.UNLINK, parent, requests.strings(name))

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self._change(Opcode.RMDIR, parent, requests.strings(name))

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        opcode, body = requests.rename(self._node(new_parent), flags)
        await self._change(opcode, parent, body + requests.strings(name, new_name))

    # Attributes -------------------------------------------------------------------------------

    async def getattr(self, ino: int, handle: int = NO_HANDLE) -> tuple[Attr, int]:
        return self._attr((await self._ask(Opcode.GETATTR, ino, wire.GETATTR_IN.pack(0, 0, 0))).data)

    async def setattr(
        self, ino: int, changes: SetAttr, handle: int = NO_HANDLE, caller: Caller | None = None
    ) -> tuple[Attr, int]:
        body = requests.setattr_body(changes, handle)
        return self._attr((await self._change(Opcode.SETATTR, ino, body, caller=caller)).data)

    async def _value(self, opcode: int, ino: int, name: bytes) -> bytes:
        body = wire.GETXATTR_IN.pack(VALUE_MAX, 0) + name
        return bytes((await self._ask(opcode, ino, body, limit=VALUE_MAX)).data)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        return await self._value(Opcode.GETXATTR, ino, requests.strings(name))

    async def listxattr(self, ino: int) -> list[bytes]:
        return [name for name in (await self._value(Opcode.LISTXATTR, ino, b"")).split(b"\0") if name]

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        body = wire.SETXATTR_IN.pack(len(value), flags, 0, 0) + requests.strings(name) + value
        await self._change(Opcode.SETXATTR, ino, body)

    async def removexattr(self, ino: int, name: bytes) -> None:
        await self._change(Opcode.REMOVEXATTR, ino, requests.strings(name))

    # Files ------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        if not self.traits.read_only:
            undo = self._release_answer(Opcode.RELEASE)
            return self._opened((await self._ask(Opcode.OPEN, ino, wire.OPEN_IN.pack(flags, 0), undo=undo)).data)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        raise _unsupported()

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, umask: int, caller: Caller
    ) -> tuple[Entry, Opened]:
        def undo(data: bytearray) -> None:
            self.connection.post(Opcode.RELEASE, self._root, wire.RELEASE_IN.pack(self._created(data).handle, 0, 0, 0))
            self._forget_answer(data)

        body = wire.CREATE_IN.pack(flags, mode, umask, 0) + requests.strings(name)
        answer = await self._change(Opcode.CREATE, parent, body, caller=caller, undo=undo)
        return self._entry(answer.data), self._created(answer.data)

    def _created(self, data: bytearray) -> Opened:
        return self._opened(data, wire.ENTRY_OUT_SIZE)

    async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
        size = total(buffers)
        done = 0
        while done < size:
            length = min(size - done, CONTENTS_MAX)
            into = part(buffers, done, length)
            body = requests.read(handle, offset + done, length)
            count = (await self._ask(Opcode.READ, ino, body, into=into, limit=length)).size
            done += count
            if count < length:
                break
        return done

    async def write_from(
        self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
    ) -> int:
        size = total(buffers)
        done = 0
        while done < size:
            length = min(size - done, CONTENTS_MAX)
            body = requests.write(handle, offset + done, length, kill_set_id=kill_set_id)
            pieces = part(buffers, done, length)
            count = self._count(await self._change(Opcode.WRITE, ino, body, *pieces), length)
            done += count
            if count < length:
                break
        return done

    async def flush(self, ino: int, handle: int) -> None:
        """ENOSYS: errors are told by the write itself, and by `fsync`."""
        raise _unsupported()

    async def release(self, ino: int, handle: int) -> None:
        if handle:
            self.connection.post(Opcode.RELEASE, self._node(ino), wire.RELEASE_IN.pack(handle, 0, 0, 0))

    async def fsync(self, ino: int, handle: int, data_only: bool = False) -> None:
        if handle:
            flags = wire.FSYNC_DATA_ONLY if data_only else 0
            await self._ask(Opcode.FSYNC, ino, wire.FSYNC_IN.pack(handle, flags, 0))

    async def fallocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        if offset < 0 or length <= 0 or offset + length > wire.OFFSET_MAX:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        await self._change(Opcode.FALLOCATE, ino, wire.FALLOCATE_IN.pack(handle, offset, length, mode, 0))

    async def lseek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        answer = await self._ask(Opcode.LSEEK, ino, wire.LSEEK_IN.pack(handle, offset, whence, 0))
        try:
            return replies.offset(answer.data)
        except ProtocolError as error:
            raise self._nonsense(error) from None

    async def copy_file_range(
        self, ino: int, handle: int, offset: int, out_ino: int, out_handle: int, out_offset: int, length: int
    ) -> int:
        length = min(length, 1 << 30)
        out = self._node(out_ino)
        body = wire.COPY_FILE_RANGE_IN.pack(handle, offset, out, out_handle, out_offset, length, 0)
        return self._count(await self._change(Opcode.COPY_FILE_RANGE, ino, body), length)

    # Directories ------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> Opened:
        if self.traits.read_only:
            raise _unsupported()
        undo = self._release_answer(Opcode.RELEASEDIR)
        opened = self._opened((await self._ask(Opcode.OPENDIR, ino, wire.OPEN_IN.pack(0, 0), undo=undo)).data)
        opened.cache_directory = True
        return opened

    async def readdir(self, ino: int, handle: int, offset: int, add: DirSink, plus: bool = False) -> None:
        key = (ino, handle)
        page = self._pages.pop(key, None)
        if page is not None and (page.offset, page.changes, page.plus) != (offset, self._changes, plus):
            self._give_back(page.entries)
            page = None
        while page is None or page.entries:
            if page is None:
                page = await self._read_page(ino, handle, offset, plus)
            for index, each in enumerate(page.entries):
                # There is nothing above the root.
                number = self.root.attr.ino if ino == ROOT and each.name == b".." else each.ino
                if not add(each.name, each.offset, number, each.mode, each.entry):
                    self._keep(key, replace(page, offset=offset, entries=page.entries[index:]))
                    return
                offset = each.offset
            if page.last:
                return
            page = None

    def _keep(self, key: tuple[int, int], page: _Page) -> None:
        """Remember what was read and not taken. Who lists without a handle may never come back for it."""
        self._pages[key] = page
        if len(self._pages) > PAGES_MAX:
            self._give_back(self._pages.pop(next(iter(self._pages))).entries)

    async def _read_page(self, ino: int, handle: int, offset: int, plus: bool) -> _Page:
        changes = self._changes
        body = requests.read(handle, offset, LISTING)
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR

        def undo(data: bytearray) -> None:
            self._give_back(self._listing(data, plus))

        data = (await self._ask(opcode, ino, body, limit=LISTING, undo=undo)).data
        return _Page(offset, self._listing(data, plus), changes, plus, len(data) + _ENTRY_MAX <= LISTING)

    def _listing(self, data: bytearray, plus: bool) -> list[Listed]:
        try:
            return replies.listing(data, plus=plus)
        except ProtocolError as error:
            raise self._nonsense(error) from None

    def _give_back(self, entries: Sequence[Listed]) -> None:
        for each in entries:
            if each.entry is not None:
                self.forget(each.entry.ino, 1)

    async def releasedir(self, ino: int, handle: int) -> None:
        page = self._pages.pop((ino, handle), None)
        if page is not None:
            self._give_back(page.entries)
        self.connection.post(Opcode.RELEASEDIR, self._node(ino), wire.RELEASE_IN.pack(handle, 0, 0, 0))

    async def fsyncdir(self, ino: int, handle: int, data_only: bool = False) -> None:
        flags = wire.FSYNC_DATA_ONLY if data_only else 0
        await self._ask(Opcode.FSYNCDIR, ino, wire.FSYNC_IN.pack(handle, flags, 0))
