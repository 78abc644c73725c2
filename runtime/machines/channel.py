"""A connection to a machine's control socket, from either side: messages, and descriptors that go with them."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import trio

from runtime.host.peer_credentials import peer_of
from runtime.machines.control_wire import Decoder, Message, ProtocolError, encode

DESCRIPTORS_MAX: Final = 3
"""Descriptors with one message: a command's standard streams."""
PIECE: Final = 64 << 10


class ControlChannel:
    """A connected stream socket. A context manager: it owns the descriptors that came and were not taken."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self._socket = connection
        self._decoder = Decoder()
        self._messages: deque[Message] = deque()
        self._sending = trio.Lock()
        self.descriptors: list[int] = []
        """Those that came. Whoever takes one out closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        while self.descriptors:
            os.close(self.descriptors.pop())

    @property
    def uid(self) -> int:
        """The user at the other end."""
        return peer_of(self._socket).uid

    async def send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send a message. BrokenResourceError if nobody listens any more."""
        rest = memoryview(encode(message))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        async with self._sending:
            try:
                while rest:
                    rest = rest[await self._socket.sendmsg([rest], rights) :]
                    rights = []
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from None

    async def receive(self) -> Message | None:
        """The next message; None at the end. ProtocolError for what is none."""
        while not self._messages:
            data = await self._receive()
            if not data:
                return None
            self._decoder.feed(data)
            self._messages.extend(self._decoder.messages())
        return self._messages.popleft()

    async def _receive(self) -> bytes:
        room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = await self._socket.recvmsg(PIECE, room, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return b""
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) // 4 * 4
                self.descriptors += array.array("i", content[:whole])
        if flags & socket.MSG_CTRUNC or len(self.descriptors) > DESCRIPTORS_MAX:
            raise ProtocolError("too many descriptors")
        return data
