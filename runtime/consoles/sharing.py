"""The machine's socket `lines`: whoever has the machine may watch its lines, and one at a time may type.

See `sharing_wire` for what is said on it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from runtime.consoles.channels.base import (
    PIECE,
    Tap,
    accept,
    converse,
    ignoring_departure,
    is_connected,
    is_ours,
    refuse,
)
from runtime.consoles.hostend import HostEnd
from runtime.consoles.sharing_wire import Answer, Decoder, Frame, FrameKind, ProtocolError, Request
from runtime.consoles.spec import Line
from umlfs.errors import UmlError, UsageError
from umlfs.host.listening import unix_listener

GREETING_SECONDS: Final = 10.0
"""How long a client may take for its first line."""
CLIENTS_MAX: Final = 64
"""Clients of a machine at a time."""

logger = logging.getLogger(__name__)


class ClientConnection:
    """The server's end of one client, from its first line on."""

    def __init__(self, client: trio.socket.SocketType) -> None:
        self._stream = trio.SocketStream(client)
        self._decoder = Decoder()
        self._sending = trio.Lock()
        self._there = is_connected(client)
        self.size = (0, 0)
        """Rows and columns of its window; zeros if it did not say."""

    async def greeting(self) -> Request:
        """What the client wants. ProtocolError for anything else; BrokenResourceError if it left."""
        with trio.move_on_after(GREETING_SECONDS):
            while self._decoder.greeting is None:
                data = await self._stream.receive_some(PIECE)
                if not data:
                    raise trio.BrokenResourceError("the client left")
                self._decoder.receive(data)
            request = Request.decode(self._decoder.greeting)
            self.size = (request.rows, request.columns)
            return request
        raise ProtocolError("no request in time")

    async def send(self, data: bytes) -> None:
        """Send a whole message."""
        async with self._sending:
            await self._stream.send_all(data)

    async def serve(self, tap: Tap, types: Callable[[], bool]) -> None:
        """Show the line, and type while `types` says that it may, until the client or the line is gone, or the client
        sends what makes no sense. BrokenResourceError, in a group, if it breaks off."""

        async def receive() -> bytes:
            keys = b""
            while not keys:
                for frame in self._decoder.frames():
                    keys += self._take(frame, tap.end, types())
                if keys:
                    break
                data = await self._stream.receive_some(PIECE)
                if not data:
                    break
                self._decoder.receive(data)
            return keys

        try:
            await converse(tap, receive, lambda data: self.send(Frame(FrameKind.DATA, data).encode()), self._there)
        except* ProtocolError as group:
            logger.debug("a client of %s: %s", tap.end.line, group.exceptions[0])

    def _take(self, frame: Frame, end: HostEnd, types: bool) -> bytes:
        """The keys in `frame`."""
        if frame.kind is FrameKind.SIZE:
            self.size = frame.size
            if types:
                end.resize(*frame.size)
        return frame.content if types and frame.kind is FrameKind.DATA else b""


class Sharing:
    """The lines of a machine, for clients of its socket.

    The first client of a line types; those after it watch, and the next of them types when it leaves. What the line
    is by itself, the terminal of `uml boot` perhaps, types as ever.
    """

    def __init__(self, ends: Mapping[Line, HostEnd], preferred: Line) -> None:
        """`preferred` is what a client gets that names no line."""
        self._ends = ends
        self._preferred = preferred
        self._clients = 0
        self._viewers: dict[Line, list[ClientConnection]] = {line: [] for line in ends}

    async def serve(self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen at `path` (mode 0600) until cancelled. UmlError if that cannot be."""
        with unix_listener(path) as listening:
            listener = trio.socket.from_stdlib_socket(listening)
            async with trio.open_nursery() as clients:
                task_status.started()
                while True:
                    client = await accept(listener)
                    why = self._objection(client)
                    if why:
                        refuse(client, Answer(error=why).encode())
                        continue
                    self._clients += 1
                    clients.start_soon(self._serve, client, clients)

    def _objection(self, client: trio.socket.SocketType) -> str:
        if not is_ours(client):
            return "the machine belongs to another user"
        return f"the machine has {CLIENTS_MAX} clients already" if self._clients >= CLIENTS_MAX else ""

    async def _serve(self, client: trio.socket.SocketType, clients: trio.Nursery) -> None:
        try:
            with client, ignoring_departure():
                connection = ClientConnection(client)
                try:
                    line = self._line(await connection.greeting())
                    await self._view(connection, line, clients)
                except UmlError as error:
                    await connection.send(Answer(error=error.what, way_out=error.way_out or "").encode())
                except ProtocolError as error:
                    logger.debug("a client of the lines: %s", error)
                    await connection.send(Answer(error=f"not the protocol of this socket: {error}").encode())
        finally:
            self._clients -= 1

    def _line(self, request: Request) -> Line:
        """UmlError for a line that there is none of."""
        line = Line.parse(request.line) if request.line else self._preferred
        if line not in self._ends:
            raise UsageError(f"{line}: this machine has no such line", f"it has {_listed(self._ends)}")
        return line

    async def _view(self, connection: ClientConnection, line: Line, clients: trio.Nursery) -> None:
        viewers, end = self._viewers[line], self._ends[line]
        viewers.append(connection)
        try:
            writes = viewers[0] is connection
            await connection.send(Answer(str(line), writes).encode())
            if writes:
                end.resize(*connection.size)
            await connection.serve(Tap(end, types=True, shows=True), lambda: viewers[0] is connection)
        finally:
            was_writer = viewers[0] is connection
            viewers.remove(connection)
            if was_writer and viewers:
                end.resize(*viewers[0].size)
                clients.start_soon(_tell_writer, viewers[0])


async def _tell_writer(connection: ClientConnection) -> None:
    with ignoring_departure(), contextlib.suppress(trio.BusyResourceError):
        notice = Frame(FrameKind.NOTICE, b"the one who typed has left: now you do")
        await connection.send(notice.encode())


def _listed(lines: Mapping[Line, object]) -> str:
    return ", ".join(map(str, sorted(lines)))
