"""The files of a captive guest, for the program that holds it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import trio

from runtime.appliance.mounting import mount
from runtime.appliance.program import program
from runtime.inspect.contents import close_file, open_file
from runtime.inspect.paths import Node, resolve
from runtime.inspect.walk import children, walk
from runtime.machine.control import Job
from runtime.machine.machine import Machine
from umlfs.errors import UmlError
from umlfs.filesystem import Attr, Caller, Filesystem, SetAttr
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode

START_SECONDS: Final = 60.0
PIECE: Final = 1 << 20
READ_MAX: Final = 256 << 20
"""Bytes that `read` gives at most: more is an error."""


class _Requests:
    """A connection as the input and the output of the program in the guest."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        return await self._connection.pull(buffers)

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        return self._connection.push(buffers)


class Files:
    """As the guest's root user sees them, with all that is mounted. Paths are absolute. OSError with the guest's errno;
    EIO when the guest is gone.

    The guest is hostile: it may answer anything, or nothing for two minutes.
    """

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self._machine = machine
        self._nursery = nursery
        self._starting = trio.Lock()
        self._filesystem: Filesystem | None = None
        self._connection: StreamConnection | None = None

    async def tree(self) -> Filesystem:
        """The guest's root, as any `Filesystem`. It is the guest's: do not close it."""
        async with self._starting:
            if self._filesystem is None or self._connection is None or self._connection.broken is not None:
                self._filesystem = await self._begin()
            return self._filesystem

    async def _begin(self) -> Filesystem:
        filer = await trio.to_thread.run_sync(program)
        self._connection = connection = StreamConnection()
        ends = _Requests(connection)
        job = self._machine.start_program(filer, stdin=ends, stdout=ends)
        self._nursery.start_soon(self._attend, job, connection)
        self._nursery.start_soon(connection.watch)
        with trio.move_on_after(START_SECONDS):
            try:
                await connection.ask(Opcode.INIT, 0, requests.init())
                return FuseStream(connection, await mount(connection, "", "root", "", writable=True), read_only=False)
            except OSError:
                raise UmlError(f"the guest cannot be looked into: {connection.broken}") from None
        connection.lose("it does not answer")
        raise UmlError("the guest does not answer", "see its log")

    async def _attend(self, job: Job, connection: StreamConnection) -> None:
        await job.ended()
        connection.lose("what reads files in the guest has ended")
        self._machine.retire(job)

    async def _resolved(self, path: str, *, follow: bool = True) -> tuple[Filesystem, Node]:
        filesystem = await self.tree()
        return filesystem, await resolve(filesystem, os.fsencode(path), follow=follow)

    async def _parent(self, path: str) -> tuple[Filesystem, int, bytes]:
        """Where the last name of `path` is, or would be."""
        top, name = posixpath.split(path.rstrip("/"))
        filesystem, node = await self._resolved(top or "/")
        return filesystem, node.ino, os.fsencode(name)

    # Looking ----------------------------------------------------------------------------------

    async def stat(self, path: str, *, follow: bool = True) -> Attr:
        """The attributes of what `path` leads to."""
        return (await self._resolved(path, follow=follow))[1].attr

    async def exists(self, path: str) -> bool:
        """Whether `path` leads anywhere."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def listdir(self, path: str = "/") -> list[str]:
        """The names in a directory, in their order."""
        filesystem, node = await self._resolved(path)
        found = await children(filesystem, node)
        for each in found:
            filesystem.forget(each.ino, 1)
        return [os.fsdecode(each.name) for each in found]

    async def walk(self, path: str = "/") -> AsyncGenerator[tuple[str, list[str], list[str]], None]:
        """As `os.walk`: each directory's path, its directories and its other names. OSError for a directory that
        cannot be read. A generator: close it (`contextlib.aclosing`) if you leave it early."""
        filesystem, top = await self._resolved(path)
        async for each in walk(filesystem, top):
            if each.failure is not None:
                raise each.failure
            names = [(os.fsdecode(node.name), node.is_directory) for node in each.children]
            yield (
                os.fsdecode(each.node.path),
                [name for name, is_directory in names if is_directory],
                [name for name, is_directory in names if not is_directory],
            )

    async def read(self, path: str, limit: int = READ_MAX) -> bytes:
        """The contents, also of files that do not tell their size. UmlError for more than `limit` bytes."""
        filesystem, node = await self._resolved(path)
        handle = await open_file(filesystem, node)
        found = bytearray()
        buffer = memoryview(bytearray(PIECE))
        try:
            while count := await filesystem.read_into(node.ino, handle, len(found), [buffer]):
                found += buffer[:count]
                if len(found) > limit:
                    raise UmlError(f"{path}: longer than {limit} bytes", "allow for more, or read it by a command")
        finally:
            await close_file(filesystem, node, handle)
        return bytes(found)

    # Changing ---------------------------------------------------------------------------------

    async def write(self, path: str, data: bytes, *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Replace the contents of a file, or make it with `mode` and `owner`. It is not replaced as a whole: who reads
        it meanwhile may see a part."""
        filesystem, parent, name = await self._parent(path)
        try:
            node = (await self._resolved(path))[1]
        except FileNotFoundError:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            entry, opened = await filesystem.create(parent, name, mode, flags, 0, Caller(*owner))
            node, handle = Node(os.fsencode(path), entry.ino, entry.attr), opened.handle
        else:
            handle = await open_file(filesystem, node, os.O_WRONLY)
            if stat.S_ISREG(node.attr.mode):
                await filesystem.setattr(node.ino, SetAttr(size=0), handle)
        try:
            for offset in range(0, len(data), PIECE):
                piece = memoryview(data)[offset : offset + PIECE]
                await filesystem.write_from(node.ino, handle, offset, [piece])
            await _flush(filesystem, node, handle)
        finally:
            await close_file(filesystem, node, handle)

    async def mkdir(self, path: str, mode: int = 0o755, *, owner: tuple[int, int] = (0, 0)) -> None:
        """Make a directory. FileExistsError."""
        filesystem, parent, name = await self._parent(path)
        await filesystem.mkdir(parent, name, mode, 0, Caller(*owner))

    async def remove(self, path: str) -> None:
        """Remove a file, a link or an empty directory."""
        filesystem, parent, name = await self._parent(path)
        node = (await self._resolved(path, follow=False))[1]
        await (filesystem.rmdir if node.is_directory else filesystem.unlink)(parent, name)

    async def rename(self, path: str, to: str) -> None:
        """Give a file another name; one that has it goes."""
        filesystem, parent, name = await self._parent(path)
        _, new_parent, new_name = await self._parent(to)
        await filesystem.rename(parent, name, new_parent, new_name)


async def _flush(filesystem: Filesystem, node: Node, handle: int) -> None:
    try:
        await filesystem.flush(node.ino, handle)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
