"""An appliance that is kept for the next command: it serves one client after the other on a socket.

A client says `keep SECONDS` or `end` in a line; the answer is a line of JSON, what is on the image, and from there on
the stream is FUSE requests and answers. When a client goes, so does all that it held.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import trio

from runtime.appliance import disk
from runtime.appliance.keeping import HELLO_MAX, make_directory, socket_path
from runtime.appliance.part import Part
from runtime.appliance.parts import MOUNTED_MAX, mounted
from runtime.appliance.relay import relay
from umlfs.block import BlockDevice
from umlfs.errors import UmlError
from umlfs.host.listening import unix_listener
from umlfs.sources import Source
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode


async def serve_kept(source: Source, seconds: float, ready: Callable[[], None]) -> None:
    """Boot an appliance for the image that `source` names, call `ready`, and serve until no client came for `seconds`.

    UmlError if it cannot be booted, or another one is there already.
    """
    path = socket_path(source)
    if path is None:
        raise UmlError(f"{source}: not an image, so nothing to keep", "leave out --keep")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_remove_directory, make_directory())
        last_closed = stack.enter_context(contextlib.ExitStack())
        device = await stack.enter_async_context(disk.opened(source))
        if not isinstance(device, BlockDevice):
            raise UmlError(f"{source}: not an image, so nothing to keep", "leave out --keep")
        parts = await disk.parts(device)
        wanted = [part for part in parts if part.mountable][:MOUNTED_MAX]
        async with mounted(device, wanted) as found:
            roots = {part.number: each for part, each in zip(wanted, found, strict=True)}
            hello = json.dumps([_described(part, roots.get(part.number)) for part in parts]).encode() + b"\n"
            connections = [each.connection for each in found if isinstance(each, FuseStream)]
            if not connections:
                return
            with unix_listener(path) as listener:
                ready()
                await _Server(connections[0], hello, seconds, last_closed).run(trio.socket.from_stdlib_socket(listener))


def _remove_directory(path: Path) -> None:
    """Of the sockets, if this was the last."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _described(part: Part, found: object) -> dict[str, object]:
    """What clients hear of a part."""
    record: dict[str, object] = asdict(part)
    if isinstance(found, FuseStream):
        record["root"] = wire.entry_out(found.root).hex()
    elif isinstance(found, UmlError):
        record["trouble"] = found.what
    return record


class _Server:
    def __init__(
        self, connection: StreamConnection, hello: bytes, seconds: float, last_closed: contextlib.ExitStack
    ) -> None:
        """What is in `last_closed` is closed when the image was let go."""
        self._connection = connection
        self._last_closed = last_closed
        self._hello = hello
        self._seconds = seconds
        self._ended = False

    async def run(self, listener: trio.socket.SocketType) -> None:
        while not self._ended and self._connection.broken is None:
            with trio.move_on_after(self._seconds) as idle:
                client, _ = await listener.accept()
            if idle.cancelled_caught:
                return
            with client:
                await self._serve(client)

    async def _serve(self, client: trio.socket.SocketType) -> None:
        stream = trio.SocketStream(client)
        try:
            line = await _line(stream)
            word, _, value = line.decode(errors="replace").partition(" ")
            if word == "end":
                self._ended = True
                self._last_closed.callback(os.close, os.dup(client.fileno()))
                return
            if word == "keep" and value.isdigit():
                self._seconds = max(self._seconds, int(value))
            await stream.send_all(self._hello)
            await relay(stream, self._connection)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ValueError):
            pass
        if self._connection.broken is None:
            await self._connection.ask(Opcode.DESTROY, 0)


async def _line(stream: trio.SocketStream) -> bytes:
    """The line with which a client begins; it waits for the answer before it goes on. ValueError if it is none."""
    data = b""
    while not data.endswith(b"\n"):
        piece = await stream.receive_some(256)
        if not piece or len(data) > HELLO_MAX:
            raise ValueError
        data += piece
    return data.strip()
