"""An appliance that is kept for the next command: it serves one client after the other on a socket.

A client says `keep SECONDS` or `end` in a line; the answer is a line of JSON, what is on the image, and from there on
the stream is FUSE requests and answers. When a client goes, so does all that it held.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import trio

from runtime.appliance.keeping import HELLO_MAX, make_directory, socket_path
from runtime.inspect import disk
from runtime.inspect.part import Part
from runtime.inspect.tree import MOUNTED_MAX, mounted
from umlfs.block import BlockDevice
from umlfs.errors import UmlError
from umlfs.filesystem import Caller
from umlfs.serve import fuse_wire as wire
from umlfs.serve.fuse_wire import Opcode
from umlfs.serve.listening import unix_listener
from umlfs.stream.connection import Connection
from umlfs.stream.filesystem import FuseStream
from umlfs.stream.requests_wire import CONTENTS_MAX

AT_ONCE: Final = 64
"""Requests of a client that are under way at the same time."""
REQUEST_MAX: Final = CONTENTS_MAX + (128 << 10)
_ALLOWED: Final = frozenset(Opcode) - {Opcode.INIT, Opcode.DESTROY}
_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


async def serve_kept(word: str, seconds: float, ready: Callable[[], None]) -> None:
    """Boot an appliance for the image that `word` names, call `ready`, and serve until no client came for `seconds`.

    UmlError if it cannot be booted, or another one is there already.
    """
    path = socket_path(word)
    if path is None:
        raise UmlError(f"{word}: not an image, so nothing to keep", "leave out --keep")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_remove_directory, make_directory())
        farewell = stack.enter_context(contextlib.ExitStack())
        device = await stack.enter_async_context(disk.opened(word))
        if not isinstance(device, BlockDevice):
            raise UmlError(f"{word}: not an image, so nothing to keep", "leave out --keep")
        parts = await disk.parts(device)
        wanted = [part for part in parts if part.mountable][:MOUNTED_MAX]
        async with mounted(device, wanted) as found:
            roots = {part.number: each for part, each in zip(wanted, found, strict=True)}
            hello = json.dumps([_told(part, roots.get(part.number)) for part in parts]).encode() + b"\n"
            connections = [each.connection for each in found if isinstance(each, FuseStream)]
            if not connections:
                return
            with unix_listener(path) as listener:
                ready()
                await _Server(connections[0], hello, seconds, farewell).run(trio.socket.from_stdlib_socket(listener))


def _remove_directory(path: Path) -> None:
    """Of the sockets, if this was the last."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _told(part: Part, found: object) -> dict[str, object]:
    """What clients hear of a part."""
    told: dict[str, object] = asdict(part)
    if isinstance(found, FuseStream):
        told["root"] = wire.entry_out(found.root).hex()
    elif isinstance(found, UmlError):
        told["trouble"] = found.what
    return told


class _Server:
    def __init__(self, connection: Connection, hello: bytes, seconds: float, farewell: contextlib.ExitStack) -> None:
        """What is in `farewell` is closed when the image was let go."""
        self._connection = connection
        self._farewell = farewell
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
                self._farewell.callback(os.close, os.dup(client.fileno()))
                return
            if word == "keep" and value.isdigit():
                self._seconds = max(self._seconds, int(value))
            await stream.send_all(self._hello)
            async with trio.open_nursery() as nursery:
                await _Client(stream, self._connection).relay(nursery)
                nursery.cancel_scope.cancel()
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


class _Client:
    """Hands the requests of one client on, and the answers back."""

    def __init__(self, stream: trio.SocketStream, connection: Connection) -> None:
        self._stream = stream
        self._connection = connection
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._answers = bytearray()
        """Those that are to be sent, together: each that wakes up the client by itself costs more than to make it."""
        self._answered: list[object] = []
        """The tokens of their requests."""
        self._more = trio.Event()

    async def relay(self, nursery: trio.Nursery) -> None:
        """Until the client hangs up. ValueError if it makes no sense."""
        nursery.start_soon(self._send)
        buffer = bytearray()
        while piece := await self._stream.receive_some(256 * 1024):
            buffer += piece
            while len(buffer) >= wire.IN_HEADER.size:
                header = wire.Header._make(wire.IN_HEADER.unpack_from(buffer))
                if not wire.IN_HEADER.size <= header.length <= REQUEST_MAX:
                    raise ValueError
                if len(buffer) < header.length:
                    break
                body = bytes(buffer[wire.IN_HEADER.size : header.length])
                del buffer[: header.length]
                token = object()
                await self._limit.acquire_on_behalf_of(token)
                nursery.start_soon(self._answer, header, body, token)

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            answers, self._answers = self._answers, bytearray()
            answered, self._answered = self._answered, []
            await self._stream.send_all(answers)
            for token in answered:
                self._limit.release_on_behalf_of(token)

    async def _answer(self, header: wire.Header, body: bytes, token: object) -> None:
        if header.opcode in _SILENT:
            self._connection.post_silently(header.opcode, header.node, body)
        else:
            error, data = await self._asked(header, body)
            self._answers += wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(data), -error, header.unique) + data
        self._answered.append(token)
        self._more.set()

    async def _asked(self, header: wire.Header, body: bytes) -> tuple[int, bytearray]:
        """The errno and the contents of the answer."""
        try:
            if header.opcode not in _ALLOWED:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            caller = Caller(header.uid, header.gid, header.pid)
            limit = CONTENTS_MAX + wire.ENTRY_OUT_SIZE
            asked = self._connection.ask(header.opcode, header.node, body, caller=caller, limit=limit)
            return 0, (await asked).data
        except OSError as failure:
            return failure.errno or errno.EIO, bytearray()
