"""Trees that stay open between the requests of a page: each of an image costs an appliance's boot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import trio

from runtime.inspect.location import Location
from runtime.inspect.tree import OpenTree, open_tree
from umlfs.errors import UmlError, sole
from umlfs.sources import Source
from umlfs.stream.filesystem import FuseStream

IDLE_SECONDS: Final = 60.0
TREES_MAX: Final = 4
"""Trees that are open at a time."""
Key = tuple[Source, int | None]


class _Kept:
    def __init__(self) -> None:
        self.tree: OpenTree | None = None
        self.error: BaseException | None = None
        self.ready = trio.Event()
        self.gone = trio.Event()
        self.scope = trio.CancelScope()
        self.users = 0
        self.changed = trio.Event()
        """Set, and made anew, when `users` changes."""

    @property
    def lost(self) -> bool:
        filesystem = None if self.tree is None else self.tree.filesystem
        return isinstance(filesystem, FuseStream) and filesystem.connection.broken is not None

    def count(self, change: int) -> None:
        self.users += change
        self.changed.set()
        self.changed = trio.Event()


class OpenTrees:
    """Opens trees on demand, in the tasks of a nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._kept: dict[Key, _Kept] = {}
        self._opening = trio.Lock()

    @contextlib.asynccontextmanager
    async def reading(self, location: Location) -> AsyncIterator[OpenTree]:
        """The tree that `location` lies in, to read. UmlError, UsageError; EIO for each request once it is lost."""
        key = (location.source, location.partition)
        async with self._opening:
            kept = self._kept.get(key)
            if kept is not None and kept.lost:
                await self._end(kept)
                kept = None
            if kept is None:
                await self._make_room()
                kept = self._kept[key] = _Kept()
                self._nursery.start_soon(self._hold, key, kept, location)
            kept.count(1)
        try:
            await kept.ready.wait()
            if kept.error is not None:
                raise kept.error
            assert kept.tree is not None
            yield kept.tree
        finally:
            kept.count(-1)

    @contextlib.asynccontextmanager
    async def writing(self, location: Location) -> AsyncIterator[OpenTree]:
        """The same to write: alone, and closed afterwards, so that all is on the disk then."""
        async with self._opening:
            for key in [key for key in self._kept if key[0] == location.source]:
                if self._kept[key].users:
                    raise UmlError(f"{location.source}: is being read", "try again in a moment")
                await self._end(self._kept[key])
            async with open_tree(location, writable=True) as tree:
                yield tree

    async def _hold(self, key: Key, kept: _Kept, location: Location) -> None:
        try:
            with kept.scope:
                async with open_tree(location, enduring=True) as tree:
                    kept.tree = tree
                    kept.ready.set()
                    await _until_idle(kept)
        except Exception as error:
            cause = sole(error)
            kept.error = cause if isinstance(cause, UmlError | OSError) else error
        finally:
            if self._kept.get(key) is kept:
                del self._kept[key]
            if kept.tree is None and kept.error is None:
                kept.error = UmlError(f"{location.source}: was closed", "try again")
            kept.ready.set()
            kept.gone.set()

    async def _make_room(self) -> None:
        while len(self._kept) >= TREES_MAX:
            idle = next((each for each in self._kept.values() if not each.users), None)
            if idle is None:
                raise UmlError("too many images are open", "try again in a moment")
            await self._end(idle)

    async def _end(self, kept: _Kept) -> None:
        kept.scope.cancel()
        await kept.gone.wait()


async def _until_idle(kept: _Kept) -> None:
    while True:
        changed = kept.changed
        if kept.users:
            await changed.wait()
            continue
        with trio.move_on_after(IDLE_SECONDS):
            await changed.wait()
            continue
        return
