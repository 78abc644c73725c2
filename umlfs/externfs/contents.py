"""What is read and written while a file is open."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from umlfs.externfs.calls import instant
from umlfs.host.syscalls import failure


class _Done:
    """An awaitable that has ended, and may be awaited by nobody, as what subclasses get from `super()` is."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE: Final = _Done()


class Contents:
    """An open file. Methods are called as those of nodes are: in a thread, or in the loop if they are `async def`."""

    direct: bool = False
    """The kernel must not cache it: its size is not known."""
    stream: bool = False
    """Every write is a message, and there is no position."""

    def size(self) -> int | Awaitable[int]:
        """In bytes; without `direct` that is what ends a read."""
        return 0

    def read(self, offset: int, length: int) -> bytes | memoryview | Awaitable[bytes | memoryview]:
        """`length` bytes from `offset`, fewer only at the end."""
        raise failure(errno.EBADF)

    def write(self, offset: int, data: bytes) -> int | Awaitable[int | None] | None:
        """Write `data`; how much was written, None for all of it."""
        raise failure(errno.EBADF)

    def truncate(self, size: int) -> Awaitable[None] | None:
        raise failure(errno.EBADF)

    @instant
    def commit(self) -> Awaitable[None] | None:
        """Let what was written count. Called when a descriptor is closed or synced; the error reaches the writer."""
        return _DONE

    @instant
    def close(self) -> Awaitable[None] | None:
        """It is used no more. What was not committed is dropped."""
        return _DONE


class Snapshot(Contents):
    """Contents as they were when the file was opened."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @instant
    async def size(self) -> int:
        return len(self.data)

    @instant
    async def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self.data)[offset : offset + length]


class Budget:
    """Memory for what is written and not yet committed: a guest must not fill ours."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> None:
        """ENOSPC if there is not so much left. A negative `size` gives back."""
        if size > self.left:
            raise failure(errno.ENOSPC)
        self.left -= size


class Rewriting(Contents):
    """Contents that replace those of a file, as a whole, when they are committed."""

    def __init__(
        self,
        load: Callable[[], Awaitable[bytes]],
        store: Callable[[bytes], Awaitable[None]],
        size_max: int,
        budget: Budget,
    ) -> None:
        """`load` gives the contents as they are, when they are asked for."""
        self._load, self._store = load, store
        self._size_max = size_max
        self._budget = budget
        self._data: bytearray | None = None
        self._dirty = False

    async def _loaded(self) -> bytearray:
        if self._data is None:
            data = await self._load()
            if self._data is None:  # of two that ask at once the first counts
                self._budget.take(len(data))
                self._data = bytearray(data)
        return self._data

    @instant
    async def size(self) -> int:
        return len(await self._loaded())

    @instant
    async def read(self, offset: int, length: int) -> bytes:
        return bytes((await self._loaded())[offset : offset + length])

    @instant
    async def write(self, offset: int, data: bytes) -> None:
        held = await self._loaded()
        self._resize(held, max(len(held), offset + len(data)))
        held[offset : offset + len(data)] = data
        self._dirty = True

    @instant
    async def truncate(self, size: int) -> None:
        if not size and self._data is None:
            self._data = bytearray()
        self._resize(await self._loaded(), size)
        self._dirty = True

    def _resize(self, data: bytearray, size: int) -> None:
        """EFBIG, ENOSPC."""
        if size > max(self._size_max, len(data)):
            raise failure(errno.EFBIG)
        more = size - len(data)
        self._budget.take(more)
        if more >= 0:
            data.extend(bytes(more))
        else:
            del data[size:]

    @instant
    async def commit(self) -> None:
        """Once for all that was written since."""
        if self._dirty and self._data is not None:
            self._dirty = False
            await self._store(bytes(self._data))

    @instant
    async def close(self) -> None:
        if self._data is not None:
            self._budget.take(-len(self._data))
            self._data = None


class Ranged(Contents):
    """Contents read part by part."""

    def __init__(self, size: int | None, read_at: Callable[[int, int], Awaitable[bytes | memoryview]]) -> None:
        self._size = size
        self._read_at = read_at
        self.direct = size is None

    @instant
    async def size(self) -> int:
        return self._size or 0

    @instant
    async def read(self, offset: int, length: int) -> bytes | memoryview:
        if self._size is not None:
            length = min(length, self._size - offset)
        return await self._read_at(offset, length) if length > 0 else b""


class Stream(Contents):
    """What has no size and no position, and takes what it is given at once."""

    direct = True
    stream = True

    @instant
    async def size(self) -> int:
        return 0

    @instant
    async def truncate(self, size: int) -> None:
        """A shell that opens it for writing truncates it."""


class Acting(Stream):
    """Every write does something, at once."""

    def __init__(self, act: Callable[[bytes], Awaitable[None]]) -> None:
        self._act = act

    @instant
    async def read(self, offset: int, length: int) -> bytes:
        return b""

    @instant
    async def write(self, offset: int, data: bytes) -> None:
        await self._act(data)
