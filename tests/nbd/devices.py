"""Devices and servers that the NBD tests share."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import trio

from umlfs.block import BlockDevice, Extent, ExtentKind
from umlfs.host.listening import unix_listener
from umlfs.nbd.client import NbdDevice
from umlfs.nbd.server import serve_nbd


class MemoryDevice(BlockDevice):
    """A device in memory that tells what was done to it, and does as the test says."""

    def __init__(self, size: int, *, read_only: bool = False, fill: bytes = b"\0") -> None:
        self.content = bytearray((fill * (size // len(fill) + 1))[:size])
        self.size = size
        self.read_only = read_only
        self.calls: list[str] = []
        self.gate: trio.Event | None = None
        """While there is one, reads and writes wait for it."""
        self.waiting = 0
        self.fails_from: int | None = None
        """Reads that reach this offset fail."""
        self.zero_from: int | None = None
        """What the map says is zero."""

    async def _wait(self) -> None:
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
            self.waiting -= 1

    def _check(self, offset: int, length: int, writing: bool = True) -> None:
        if writing and self.read_only:
            raise OSError(errno.EROFS, "read-only")
        if offset < 0 or offset + length > self.size:
            raise OSError(errno.EINVAL, "beyond the end")

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = sum(map(len, buffers))
        self._check(offset, length, writing=False)
        await self._wait()
        self.calls.append(f"read {offset} {length}")
        if self.fails_from is not None and offset + length > self.fails_from:
            raise OSError(errno.EIO, "a bad sector")
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = sum(map(len, buffers))
        self._check(offset, length)
        await self._wait()
        self.calls.append(f"write {offset} {length}")
        self.content[offset : offset + length] = b"".join(buffers)

    async def flush(self) -> None:
        self.calls.append("flush")

    async def discard(self, offset: int, length: int) -> None:
        self._check(offset, length)
        self.calls.append(f"discard {offset} {length}")
        self.content[offset : offset + length] = bytes(length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        self._check(offset, length)
        self.calls.append(f"zeroes {offset} {length} {unmap}")
        self.content[offset : offset + length] = bytes(length)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        self._check(offset, length, writing=False)
        middle = min(max(offset, self.size if self.zero_from is None else self.zero_from), offset + length)
        parts = (
            Extent(offset, middle - offset, ExtentKind.DATA),
            Extent(middle, offset + length - middle, ExtentKind.ZERO),
        )
        return [part for part in parts if part.length]

    async def close(self) -> None:
        self.calls.append("close")


@contextlib.asynccontextmanager
async def serving(device: BlockDevice, path: Path, *, name: str = "", read_only: bool = False) -> AsyncIterator[str]:
    """Serve `device` at a socket; gives the URI."""
    with unix_listener(path) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_nbd, device, [listener], name=name, read_only=read_only))
            yield f"nbd+unix:///{name}?socket={path}"
            nursery.cancel_scope.cancel()


async def connect(path: Path, export: str = "", timeout: float = 60.0) -> NbdDevice:
    """A device that is what is served at a socket."""

    async def dial() -> trio.socket.SocketType:
        return (await trio.open_unix_socket(str(path))).socket

    return await NbdDevice.connect("test", dial, export, timeout=timeout)
