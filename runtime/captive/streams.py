"""A command's streams as trio streams: no descriptor of the host is between the guest and the program."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

import trio

from umlfs.buffers import scatter

HELD_MAX: Final = 1 << 20
"""Bytes of output that wait for the program. The command is held up by more."""


class CommandInput(trio.abc.SendStream):
    """What the command reads. `send_all` returns when the guest has taken all of it.

    BrokenResourceError when the command has ended; a `send_all` that is cancelled may have sent a part.
    """

    def __init__(self) -> None:
        self._rest = memoryview(b"")
        self._ended = False
        self._broken = False
        self._changed = trio.Event()
        self._conflict = trio.Lock()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check()
        try:
            self._conflict.acquire_nowait()
        except trio.WouldBlock:
            raise trio.BusyResourceError("another task is sending") from None
        try:
            self._rest = memoryview(data).cast("B")
            self._change()
            await trio.lowlevel.checkpoint()
            while self._rest:
                self._check()
                await self._changed.wait()
        finally:
            self._rest = memoryview(b"")
            self._conflict.release()

    async def wait_send_all_might_not_block(self) -> None:
        self._check()
        while self._rest and not self._broken:
            await self._changed.wait()

    def _check(self) -> None:
        if self._ended:
            raise trio.ClosedResourceError
        if self._broken:
            raise trio.BrokenResourceError("the command has ended")

    async def aclose(self) -> None:
        """The command is at the end of its input."""
        self._ended = True
        self._change()
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        """Nobody reads any more."""
        self._broken = True
        self._change()

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        """The guest's side."""
        while not self._rest and not self._ended:
            await self._changed.wait()
        done = scatter(self._rest, buffers)
        self._rest = self._rest[done:]
        self._change()
        return done


class CommandOutput(trio.abc.ReceiveStream):
    """What the command writes. Its end comes when the command is over; closing it breaks the command's pipe."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._over = False
        self._closed = False
        self._changed = trio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        while not self._held and not self._over and not self._closed:
            await self._changed.wait()
        if self._closed:
            raise trio.ClosedResourceError
        found = bytes(self._held[:max_bytes])
        del self._held[: len(found)]
        self._change()
        return found

    async def aclose(self) -> None:
        self._closed = True
        self._held.clear()
        self._change()
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """No more comes."""
        self._over = True
        self._change()

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        """The guest's side."""
        while len(self._held) >= HELD_MAX and not self._closed:
            await self._changed.wait()
        if self._closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        for buffer in buffers:
            self._held += buffer
        self._change()
        return sum(map(len, buffers))
