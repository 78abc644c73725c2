"""A directory being listed: some hundreds of names at a time, however many there are."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

import trio

from umlfs.externfs.calls import Calls, iterator, known_at_once
from umlfs.externfs.names import encoded
from umlfs.externfs.node import Child, Directory, Node
from umlfs.host.syscalls import failure

_BATCH_FIRST, _BATCH = 64, 1024
_KEPT: Final = 2048
"""Names behind the position that are kept, for a consumer that steps back."""
_GIVEN: Final = 256
"""Names given at a time."""


class Listing:
    """An open directory. The position is the number of names before it."""

    def __init__(self, calls: Calls, directory: Directory) -> None:
        self._calls = calls
        self._directory = directory
        self._items: Iterator[Child] | AsyncIterator[Child] | None = None
        self._at_once = False
        self._read: list[tuple[bytes, Node] | None] = []
        """What was read from `_start` on; None where a name is gone."""
        self._start = 0
        self._ended = False
        self._trouble: OSError | None = None
        """Why a name could not be given; told when all others were."""
        self._lock = trio.Lock()

    async def entries(self, position: int) -> list[tuple[bytes, Node] | None]:
        """Some entries from `position`, none at the end. Those before are not asked for again, unless by a rewind."""
        first = position - self._start
        if position and 0 <= first < len(self._read):
            return self._read[first : first + _GIVEN]
        if position and self._ended and self._trouble is None and first >= len(self._read):
            return []
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()  # the other way would let others run, for nothing
        try:
            if position < self._start or not position:
                await self._rewind()
            while position >= self._start + len(self._read) and not self._ended:
                self._trim(position)
                await self._more()
        finally:
            self._lock.release()
        first = position - self._start
        if first >= len(self._read) and self._trouble is not None:
            raise self._trouble
        return self._read[first : first + _GIVEN]

    def _trim(self, position: int) -> None:
        """Let go of what lies far behind."""
        passed = min(position - self._start - _KEPT, len(self._read))
        if passed > 0:
            del self._read[:passed]
            self._start += passed

    def drop(self, name: bytes) -> None:
        """`name` is there no more."""
        for index, item in enumerate(self._read):
            if item is not None and item[0] == name:
                self._read[index] = None

    async def close(self) -> None:
        """Let go of the generator."""
        items, self._items = self._items, None
        if items is not None and not self._at_once:
            if hasattr(items, "aclose"):
                await self._calls(_end, items)
            elif hasattr(items, "close"):
                await self._calls(items.close)

    async def _rewind(self) -> None:
        await self.close()
        self._read.clear()
        self._start, self._ended, self._trouble = 0, False, None
        found = await self._calls(self._directory.children)
        self._at_once = known_at_once(found)
        self._items = iterator(found)

    async def _more(self) -> None:
        if self._items is None:  # a position where nothing was begun
            self._ended = True
            return
        count = _BATCH if self._read else _BATCH_FIRST
        if self._at_once:
            batch = list(self._items)  # type: ignore[arg-type]
        else:
            batch = await self._calls.batch(self._items, count)
        self._ended = self._at_once or len(batch) < count
        for name, node in batch:
            self._add(name, node)

    def _add(self, name: str, node: Node) -> None:
        try:
            self._read.append((encoded(name), node))
        except OSError as error:
            self._trouble = error
        except ValueError as error:
            self._trouble = self._calls.fault(self._directory.children, error)


async def search(calls: Calls, directory: Directory, name: str) -> Node:
    """What `name` leads to, by a look at all names. ENOENT."""
    items = await calls(directory.children)
    if known_at_once(items):
        batch: list[Child] = list(items)
    else:
        going = iterator(items)
        batch = await calls.batch(going, _BATCH)
        while not any(found == name for found, _ in batch) and len(batch) == _BATCH:
            batch = await calls.batch(going, _BATCH)
    for found, node in batch:
        if found == name:
            return node
    raise failure(errno.ENOENT)


async def _end(items: AsyncGenerator[Child, None]) -> None:
    await items.aclose()  # which by itself is no coroutine function
