"""`unix:SOCKET`: a stream socket of the host, one client at a time. Bytes as they are."""

from __future__ import annotations

import contextlib

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
from runtime.consoles.spec import Channel
from umlfs.serve.listening import unix_listener


class Socket:
    """A listening socket, mode 0600."""

    def __init__(self, channel: Channel, tap: Tap) -> None:
        """UmlError if it cannot be made, or another server listens there."""
        self.description = str(channel)
        self._tap = tap
        self._taken = False
        self._stack = contextlib.ExitStack()
        listener = self._stack.enter_context(unix_listener(channel.argument))
        self._listener = trio.socket.from_stdlib_socket(listener)

    def close(self) -> None:
        """Remove the socket."""
        self._listener.close()
        self._stack.close()

    async def run(self) -> None:
        """Serve clients until the line has ended."""
        async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, clients)
            while not self._tap.end.ended:
                await self._tap.end.wait_for_output()
            nursery.cancel_scope.cancel()

    async def _listen(self, clients: trio.Nursery) -> None:
        while True:
            client = await accept(self._listener)
            if not is_ours(client):
                refuse(client, f"{self._tap.end.line} belongs to another user\r\n".encode())
            elif self._taken:
                refuse(client, f"{self._tap.end.line} is in use; try again when that client has left\r\n".encode())
            else:
                self._taken = True
                clients.start_soon(self._serve, client)

    async def _serve(self, client: trio.socket.SocketType) -> None:
        try:
            with client, ignoring_departure():
                stream = trio.SocketStream(client)
                there = is_connected(client)
                await converse(self._tap, lambda: stream.receive_some(PIECE), stream.send_all, there)
        finally:
            self._taken = False
