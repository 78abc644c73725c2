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
from runtime.consoles.channels.clients import LineClients
from runtime.consoles.spec import ChannelSpec
from umlfs.host.listening import unix_listener


class Socket:
    """A listening socket, mode 0600."""

    def __init__(self, channel: ChannelSpec, tap: Tap) -> None:
        """UmlError if it cannot be made, or another server listens there."""
        self.description = str(channel)
        self._tap = tap
        self._clients = LineClients()
        self._clients.taps.append(tap)
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
            await self._clients.wait_for_end()
            nursery.cancel_scope.cancel()

    async def _listen(self, clients: trio.Nursery) -> None:
        while True:
            client = await accept(self._listener)
            if not is_ours(client):
                refuse(client, f"{self._tap.end.line} belongs to another user\r\n".encode())
                continue
            index = await self._clients.take(client)
            if index is None:
                refuse(client, self._clients.refusal())
            else:
                clients.start_soon(self._serve, client, index)

    async def _serve(self, client: trio.socket.SocketType, index: int) -> None:
        try:
            with client, ignoring_departure():
                stream = trio.SocketStream(client)
                there = is_connected(client)
                await converse(self._tap, lambda: stream.receive_some(PIECE), stream.send_all, there)
        finally:
            self._clients.leave(index)
