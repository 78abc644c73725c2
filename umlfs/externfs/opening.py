"""What a file is opened as, by which of its methods a plugin wrote."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from umlfs.externfs.calls import Calls
from umlfs.externfs.contents import Acting, Budget, Contents, Ranged, Rewriting, Snapshot
from umlfs.externfs.node import Action, File


def has(node: object, base: type, method: str) -> bool:
    """Whether the class of `node` has a `method` of its own, not that of `base`."""
    return getattr(type(node), method) is not getattr(base, method)


async def opened(calls: Calls, file: File, flags: int, budget: Budget) -> Contents:
    """The open file. OSError of the plugin, EACCES for what it has no method for."""
    if has(file, File, "open"):
        contents: Contents = await calls(file.open, flags)
        return contents
    if isinstance(file, Action):
        return Acting(_one(calls, file.act))
    if flags & os.O_ACCMODE != os.O_RDONLY:
        return _rewriting(calls, file, flags, budget)
    if has(file, File, "read_at"):
        return Ranged(_size(file), _range(calls, file))
    return Snapshot(await whole(calls, file))


def _rewriting(calls: Calls, file: File, flags: int, budget: Budget) -> Rewriting:
    async def load() -> bytes:
        write_only = not has(file, File, "read")
        return b"" if flags & os.O_TRUNC or write_only else await whole(calls, file)

    return Rewriting(load, _one(calls, file.write), file.size_max, budget)


async def whole(calls: Calls, file: File) -> bytes:
    """All that is in it."""
    data = await calls(file.read)
    return data.encode(errors="surrogateescape") if isinstance(data, str) else bytes(data)


def _size(file: File) -> int | None:
    return None if file.size is None or file.size < 0 else file.size


def _one(calls: Calls, method: Callable[[bytes], object]) -> Callable[[bytes], Awaitable[None]]:
    async def call(data: bytes) -> None:
        await calls(method, data)

    return call


def _range(calls: Calls, file: File) -> Callable[[int, int], Awaitable[bytes | memoryview]]:
    async def read(offset: int, length: int) -> bytes | memoryview:
        found: bytes | memoryview = await calls(file.read_at, offset, length)
        return found

    return read
