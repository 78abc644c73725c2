"""The contents of files, read ahead."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from runtime.inspect.paths import Node, failure
from umlfs.filesystem import NO_HANDLE, Filesystem

PIECE: Final = 1 << 20
"""Bytes of one read."""
UNTOLD: Final = 1 << 40
"""Where files end that say they are empty: those of /proc do, and are not."""
AHEAD: Final = 3
"""Pieces that are on their way while one is used."""


async def open_file(filesystem: Filesystem, node: Node, flags: int = os.O_RDONLY) -> int:
    """A handle, or `NO_HANDLE` where none is needed. OSError that names the path."""
    try:
        return (await filesystem.open(node.ino, flags)).handle
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return NO_HANDLE
        raise failure(error.errno or errno.EIO, node.path) from None


async def close_file(filesystem: Filesystem, node: Node, handle: int) -> None:
    """Give back what `open_file` gave."""
    with trio.CancelScope(shield=True):
        try:
            await filesystem.release(node.ino, handle)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise


async def read(filesystem: Filesystem, node: Node, limit: int) -> bytes:
    """The first `limit` bytes of a file. OSError."""
    handle = await open_file(filesystem, node)
    try:
        data = bytearray(min(limit, node.attr.size))
        count = await filesystem.read_into(node.ino, handle, 0, [memoryview(data)]) if data else 0
    except OSError as error:
        raise failure(error.errno or errno.EIO, node.path) from None
    finally:
        await close_file(filesystem, node, handle)
    return bytes(data[:count])


Use = Callable[[int, memoryview], Awaitable[None]]
"""Gets each piece of contents with its offset, in order."""


async def each_piece(filesystem: Filesystem, node: Node, handle: int, use: Use, start: int, end: int) -> int:
    """Give `use` the contents from `start` to `end`, some pieces being read meanwhile. Returns where they ended, which
    is before `end` if the file does. OSError that names the path; what `use` raises."""
    reader = _Reader(filesystem, node, handle, end)
    if end - start <= PIECE:
        piece = _Piece(start, bytearray(end - start))
        await reader.read(piece)
        await use(start, piece.contents)
        return start + piece.count
    return await reader.run(use, start)


class _Piece:
    """A part of a file that is being read."""

    def __init__(self, offset: int, buffer: bytearray) -> None:
        self.offset = offset
        self.buffer = buffer
        self.count = 0
        self.failure: OSError | None = None
        self.done = trio.Event()

    @property
    def contents(self) -> memoryview:
        if self.failure is not None:
            raise self.failure
        return memoryview(self.buffer)[: self.count]


class _Reader:
    """Reads a file ahead."""

    def __init__(self, filesystem: Filesystem, node: Node, handle: int, end: int) -> None:
        self._filesystem = filesystem
        self._node = node
        self._handle = handle
        self._end = end

    async def read(self, piece: _Piece) -> None:
        """Fill the piece."""
        view = memoryview(piece.buffer)[: self._end - piece.offset]
        try:
            piece.count = await self._filesystem.read_into(self._node.ino, self._handle, piece.offset, [view])
        except OSError as error:
            piece.failure = failure(error.errno or errno.EIO, self._node.path)
        piece.done.set()

    async def run(self, use: Use, start: int) -> int:
        raised: Exception | None = None
        reached = start
        async with trio.open_nursery() as nursery:
            try:
                reached = await self._feed(nursery, use, start)
            except Exception as error:  # raised below, out of the nursery's group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
        return reached

    async def _feed(self, nursery: trio.Nursery, use: Use, start: int) -> int:
        pieces: deque[_Piece] = deque()
        reached = behind = start
        free = [bytearray(PIECE) for _ in range(AHEAD + 1)]
        while True:
            while len(pieces) < AHEAD and behind < self._end:
                pieces.append(_Piece(behind, free.pop()))
                nursery.start_soon(self.read, pieces[-1])
                behind += PIECE
            if not pieces:
                return reached
            piece = pieces.popleft()
            await piece.done.wait()
            await use(piece.offset, piece.contents)
            reached = piece.offset + piece.count
            if piece.count < min(PIECE, self._end - piece.offset):
                return reached
            free.append(piece.buffer)
