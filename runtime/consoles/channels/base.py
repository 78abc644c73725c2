"""What all channels have in common: their side of a line, and a client that comes and goes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import trio

from runtime.consoles.hostend import HostEnd, Reader
from runtime.host.peer_credentials import peer_of
from umlfs.errors import UmlError

PIECE: Final = 16 << 10
ACCEPT_AGAIN: Final = 0.1
"""Seconds until the next attempt to accept a client where the process has no descriptor left."""
_UNREAD: Final = 64 << 10
_GONE: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Channel(Protocol):
    """A channel that serves one direction of a line or both, from its making on until `close`."""

    @property
    def description(self) -> str:
        """What `config con1` says of it: `pts:/dev/pts/3`."""

    async def run(self) -> None:
        """Pass on what is said and typed; return when the line has ended and all that was said is passed on."""

    def close(self) -> None:
        """Give back what was opened, and leave everything as it was."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a channel is to a line: its input, its output, or both."""

    end: HostEnd
    types: bool
    shows: bool

    async def type(self, data: bytes, still_there: Callable[[], bool] = lambda: True) -> bool:
        """See `HostEnd.type`; dropped where the line's input is another channel."""
        return not self.types or await self.end.type(data, still_there)

    @contextlib.contextmanager
    def reader(self, *, patient: bool = False) -> Iterator[Reader | _Nothing]:
        """See `HostEnd.reader`; where the line's output is another channel, there is nothing to read until the end."""
        if not self.shows:
            yield _Nothing(self.end)
            return
        with self.end.reader(patient=patient) as reader:
            yield reader


@dataclass(frozen=True, slots=True)
class _Nothing:
    end: HostEnd
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def read(self) -> bytes:
        while not self.end.ended:
            await self.end.wait_for_output()
        return b""


@dataclass(frozen=True, slots=True)
class Xterm:
    """The emulator of `xterm` channels, from `xterm=EMULATOR,TITLE-SWITCH,EXEC-SWITCH`."""

    emulator: str = "x-terminal-emulator"
    title: str = "-T"
    execute: str = "-e"


@dataclass(slots=True)
class Surroundings:
    """What channels need besides their own words."""

    umid: str
    directory: Path
    """For sockets of ours, for this user alone."""
    xterm: Xterm
    ports: dict[tuple[str, int], Channel] = field(default_factory=dict)
    """Servers of lines that share a port."""


async def show(tap: Tap, send: Callable[[bytes], Awaitable[object]], *, patient: bool = False) -> None:
    """Send what the guest says, to the end of the line; not what an absent reader would still have to take then."""
    with tap.reader(patient=patient) as reader, reader.scope:
        while data := await reader.read():
            await send(data)


async def converse(
    tap: Tap,
    receive: Callable[[], Awaitable[bytes]],
    send: Callable[[bytes], Awaitable[object]],
    still_there: Callable[[], bool],
) -> None:
    """Pass on both ways, until the client is gone (`receive` gives nothing) or the line has ended."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            while (data := await receive()) and await tap.type(data, still_there):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        await show(tap, send)
        nursery.cancel_scope.cancel()


def is_connected(client: socket.socket | trio.socket.SocketType) -> Callable[[], bool]:
    """Tells whether the other side still has its end open, even if it sent more than we have read."""
    poll = select.poll()
    poll.register(client.fileno(), _GONE)
    return lambda: not poll.poll(0)


def is_ours(client: trio.socket.SocketType) -> bool:
    """Whether who connected to a Unix socket is this user, or root."""
    return peer_of(client).uid in (0, os.geteuid())


@contextlib.contextmanager
def ignoring_departure() -> Iterator[None]:
    """A client may go at any moment: that is no failure."""
    try:
        yield
    except* (ConnectionError, trio.BrokenResourceError):
        pass


def refuse(client: trio.socket.SocketType, why: bytes) -> None:
    """Tell a client why it cannot be served, if it listens, and let it go. Never waits."""
    with contextlib.suppress(OSError):
        os.write(client.fileno(), why)
        # What was sent and never read would make the end a reset, which takes the answer with it.
        os.read(client.fileno(), _UNREAD)
    client.close()


async def accept(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    """The next client. Waits a moment where there is no descriptor left for it."""
    while True:
        try:
            client, _ = await listener.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                raise
            await trio.sleep(ACCEPT_AGAIN)
        else:
            return client


def failed(what: object, error: OSError, way_out: str) -> UmlError:
    """A channel cannot be opened."""
    return UmlError(f"{what}: {os.strerror(error.errno or 0)}", way_out)
