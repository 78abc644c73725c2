"""Lines without a kernel: the test holds the far end of their ptys, as a guest would."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio

from runtime.consoles.lines import Consoles
from runtime.consoles.spec import Line, parse_all

BOUND = 60
"""Seconds that nothing here takes."""


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds: for what no event tells."""
    with trio.fail_after(BOUND):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


class Guest:
    """The kernel's side of the lines."""

    def __init__(self, consoles: Consoles) -> None:
        self.consoles = consoles

    def fd(self, line: str) -> int:
        return self.consoles.end(Line.parse(line)).slave

    async def say(self, line: str, data: bytes) -> None:
        """Write all of `data`, waiting for room as a guest does."""
        rest = memoryview(data)
        with trio.fail_after(BOUND):
            while rest:
                try:
                    rest = rest[os.write(self.fd(line), rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.fd(line))

    async def hear(self, line: str, count: int) -> bytes:
        """Read what was typed, `count` bytes."""
        got = b""
        with trio.fail_after(BOUND):
            while len(got) < count:
                await trio.lowlevel.wait_readable(self.fd(line))
                got += os.read(self.fd(line), count - len(got))
        return got

    async def heard(self, line: str, text: bytes) -> None:
        """What was typed is `text`."""
        assert await self.hear(line, len(text)) == text

    def size(self, line: str) -> tuple[int, int]:
        return os.get_terminal_size(self.fd(line))[::-1]

    async def has_size(self, line: str, rows: int, columns: int) -> None:
        await eventually(lambda: self.size(line) == (rows, columns))


@contextlib.asynccontextmanager
async def guest(*words: str, **options: Any) -> AsyncIterator[Guest]:
    async with Consoles(parse_all(words), **options) as consoles:
        for fd in consoles.inherited:
            os.set_blocking(fd, False)
        yield Guest(consoles)


class Client:
    """Somebody on a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.seen = b""

    async def see(self, text: bytes) -> bytes:
        """Receive until `text` comes, after what was seen before; what came before it."""
        with trio.fail_after(BOUND):
            while text not in self.seen:
                data = await self.stream.receive_some()
                assert data, self.seen
                self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before

    async def end(self) -> bytes:
        """Receive until the other side closes: what came."""
        with trio.fail_after(BOUND), contextlib.suppress(trio.BrokenResourceError):
            while data := await self.stream.receive_some():
                self.seen += data
        return self.seen

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)


@contextlib.asynccontextmanager
async def tcp(description: str, receive_buffer: int = 0) -> AsyncIterator[Client]:
    """A client of `port:N`."""
    client = trio.socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await client.connect(("127.0.0.1", int(description.rpartition(":")[2])))
    async with trio.SocketStream(client) as stream:
        yield Client(stream)


@contextlib.asynccontextmanager
async def unix(path: Path) -> AsyncIterator[Client]:
    """A client of a Unix socket."""
    async with await trio.open_unix_socket(str(path)) as stream:
        yield Client(stream)
