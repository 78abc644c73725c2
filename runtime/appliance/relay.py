"""Between a client of a kept appliance and the program in that: bytes, of which only the headers are looked at.

What a client asks for is checked by the program, which trusts nobody's numbers; what that answers, by the client.
"""

from __future__ import annotations

import errno
from typing import Final

import trio

from umlfs.stream.connection import TIMEOUT_SECONDS, StreamConnection
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode
from umlfs.wire.stream_requests import CONTENTS_MAX

AT_ONCE: Final = 64
"""Requests of a client that are under way at the same time."""
REQUEST_MAX: Final = CONTENTS_MAX + (128 << 10)
ANSWER_MAX: Final = CONTENTS_MAX + (128 << 10)
BEHIND_MAX: Final = 8 << 20
"""Bytes of answers that wait for a client to read them, until no more requests of it are taken."""
_PIECE: Final = 256 * 1024
_ALLOWED: Final = frozenset(Opcode) - {Opcode.INIT, Opcode.DESTROY}
_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


async def relay(stream: trio.SocketStream, connection: StreamConnection) -> None:
    """Pass on until the client hangs up or the connection is lost, and wait for the answers that nobody wants any more.

    ValueError if the client makes no sense, BrokenResourceError if it is gone; the connection is lost if the program
    makes none.
    """
    answers = _Answers(connection)
    connection.passed_on = answers.take
    try:
        async with trio.open_nursery() as nursery:
            connection.on_loss = nursery.cancel_scope.cancel
            nursery.start_soon(_send, stream, answers)
            await _receive(stream, connection, answers)
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(TIMEOUT_SECONDS, shield=True) as limit:
            await answers.all_there()
        if limit.cancelled_caught:
            connection.lose("the appliance does not answer")
        connection.passed_on = None


async def _send(stream: trio.SocketStream, answers: _Answers) -> None:
    while True:
        await stream.send_all(await answers.get())


async def _receive(stream: trio.SocketStream, connection: StreamConnection, answers: _Answers) -> None:
    buffer = bytearray()
    while piece := await stream.receive_some(_PIECE):
        buffer += piece
        while len(buffer) >= wire.IN_HEADER.size:
            header = wire.Header._make(wire.IN_HEADER.unpack_from(buffer))
            if not wire.IN_HEADER.size <= header.length <= REQUEST_MAX:
                raise ValueError
            if len(buffer) < header.length:
                break
            await answers.room()
            if header.opcode not in _ALLOWED:
                answers.refuse(header.unique)
            else:
                answers.wanted += header.opcode not in _SILENT
                connection.pass_on(bytes(buffer[: header.length]))
            del buffer[: header.length]


class _Answers:
    """Those on their way to the client."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection
        self.wanted = 0
        """How many are still to come."""
        self._waiting = bytearray()
        """What came, and was not sent yet."""
        self._head = bytearray()
        self._left = 0
        """Bytes of an answer that are still to come."""
        self._own = bytearray()
        """Answers of ours, which go between two of the others."""
        self._changed = trio.Event()

    def take(self, data: memoryview) -> None:
        """The next bytes of answers, cut in any way."""
        self._waiting += data
        while data:
            if not self._left:  # at a header
                missing = wire.OUT_HEADER.size - len(self._head)
                self._head += data[:missing]
                data = data[missing:]
                if len(self._head) == wire.OUT_HEADER.size and not self._begin():
                    return
            piece = min(self._left, len(data))
            self._left -= piece
            data = data[piece:]
            self.wanted -= bool(piece) and not self._left
        self._change()

    def _begin(self) -> bool:
        length, _, _ = wire.OUT_HEADER.unpack(self._head)
        self._head.clear()
        if not wire.OUT_HEADER.size <= length <= ANSWER_MAX or not self.wanted:
            self._connection.lose("the other end makes no sense")
            self._change()
            return False
        self._left = length - wire.OUT_HEADER.size
        self.wanted -= not self._left
        return True

    def refuse(self, unique: int) -> None:
        """Answer that there is no such request."""
        self._own += wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -errno.ENOSYS, unique)
        self._change()

    def _change(self) -> None:
        if not self._left and not self._head:
            self._waiting += self._own
            self._own.clear()
        self._changed.set()
        self._changed = trio.Event()

    async def get(self) -> bytearray:
        """Wait for some, and take all there are."""
        while not self._waiting:
            await self._changed.wait()
        found, self._waiting = self._waiting, bytearray()
        self._change()
        return found

    async def room(self) -> None:
        """Wait until another request can be taken."""
        while self._connection.broken is None and (self.wanted >= AT_ONCE or len(self._waiting) > BEHIND_MAX):
            await self._changed.wait()

    async def all_there(self) -> None:
        """Wait until nothing is to come any more; also where nothing will."""
        while self.wanted and self._connection.broken is None:
            await self._changed.wait()
