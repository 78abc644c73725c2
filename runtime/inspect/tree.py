"""What a source holds, as a `Filesystem`, whatever the source is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Final

import trio

from runtime.appliance.client import end_kept, kept_tree
from runtime.appliance.parts import mounted
from runtime.inspect.location import Location
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream


@dataclass(frozen=True, slots=True)
class OpenTree:
    """An open source."""

    filesystem: Filesystem
    kind: str
    """The kernel's name for the filesystem of an image; `tree` for what is a filesystem by itself."""
    name: str = ""
    """What errors call it."""

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """An OSError with a path in this tree, raised within, names the tree too."""
        try:
            yield
        except OSError as error:
            if isinstance(error.filename, bytes):
                colon = "" if os.path.isdir(self.name) else ":"
                error.filename = f"{self.name}{colon}{os.fsdecode(error.filename)}"
            raise

    async def synchronize(self) -> None:
        """Make all that was changed durable. UmlError where that fails: then not all that was written is there."""
        try:
            await self.filesystem.syncfs()
        except OSError as error:
            if error.errno == errno.ENOSYS:  # it has nothing to write back
                return
            why = os.strerror(error.errno or errno.EIO)
            raise UmlError(f"{self.name}: {why}: not all that was written is there", _CHECK) from None


_CHECK: Final = "see that its disk has room and is sound, and write again"


@contextlib.asynccontextmanager
async def open_tree(location: Location, *, writable: bool = False, enduring: bool = False) -> AsyncIterator[OpenTree]:
    """The tree that `location` lies in; its path plays no part.

    For an image an appliance is booted, unless one is kept. An image that is only read stays as it is, to the byte: a
    journal is replayed into memory. A machine goes on meanwhile. UmlError, UsageError: should the guest end, that
    cancels what is done with the tree; unless it is `enduring`, and every request is EIO from then on.
    """
    async with _opened(location, writable) as tree, tree.filesystem.running():
        if enduring or not isinstance(tree.filesystem, FuseStream):
            yield tree
            return
        async with _until_lost(tree.filesystem.connection, tree.name):
            yield tree


@contextlib.asynccontextmanager
async def _until_lost(connection: StreamConnection, name: str) -> AsyncIterator[None]:
    with trio.CancelScope() as scope:
        connection.on_loss = scope.cancel
        try:
            yield
        except OSError:
            if connection.broken is None:
                raise
    if connection.broken is not None:
        raise UmlError(f"{name}: {connection.broken}", "what was done until then may be incomplete")


@contextlib.asynccontextmanager
async def _opened(location: Location, writable: bool) -> AsyncIterator[OpenTree]:
    if location.machine:
        async with _machine(location, writable) as tree:
            yield tree
        return
    if writable:
        await trio.to_thread.run_sync(end_kept, location.source)
    else:
        async with kept_tree(location.source, location.partition) as kept:
            if kept is not None:
                yield OpenTree(*kept, str(replace(location, path=None)))
                return
    async with _own_tree(location, writable) as tree:
        yield tree


@contextlib.asynccontextmanager
async def _machine(location: Location, writable: bool) -> AsyncIterator[OpenTree]:
    from runtime.machines import client
    from runtime.machines.inside import inside

    if location.partition is not None:
        raise UsageError(f"{location.source}: a machine, which has no partitions", "leave it out")
    async with inside(client.find(location.source.argument), writable=writable) as filesystem:
        yield OpenTree(filesystem, "tree", str(location.source))


@contextlib.asynccontextmanager
async def _own_tree(location: Location, writable: bool) -> AsyncIterator[OpenTree]:
    from runtime.appliance import disk
    from runtime.appliance.part import choose

    async with disk.opened(location.source, writable=writable) as found:
        if isinstance(found, Filesystem):
            if location.partition is not None:
                raise UmlError(f"{location.source}: not a disk", "leave out the partition")
            yield OpenTree(found, "tree", str(location.source).removeprefix("hostfs:"))
            return
        part = choose(str(location.source), await disk.parts_and_volumes(found), location.partition)
        async with mounted(found, [part], writable=writable) as filesystems:
            if isinstance(filesystems[0], UmlError):
                raise UmlError(f"{location.source}: {filesystems[0].what}", details=filesystems[0].details)
            yield OpenTree(filesystems[0], part.kind or "", str(replace(location, path=None)))
