"""`port:[ADDRESS:]N`: a telnet server. Lines may share a port: each client gets one that has none."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import trio

from runtime.consoles.channels.base import (
    PIECE,
    Surroundings,
    Tap,
    accept,
    converse,
    ignoring_departure,
    is_connected,
    refuse,
)
from runtime.consoles.channels.clients import LineClients
from runtime.consoles.spec import LOOPBACK, ChannelSpec
from runtime.consoles.telnet_wire import Resized, Telnet
from umlfs.host.listening import tcp_listeners

KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""A client whose machine vanished is noticed after a minute, and its line is free again."""


class Server:
    """What listens at one address, for all lines that name it."""

    def __init__(self, address: tuple[str, int]) -> None:
        """UmlError if nobody can listen there."""
        self.clients = LineClients()
        self._stack = contextlib.ExitStack()
        listeners = self._stack.enter_context(tcp_listeners(*address))
        self._listeners = [trio.socket.from_stdlib_socket(each) for each in listeners]
        port = listeners[0].getsockname()[1]
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.description = f"port:{port}" if host == LOOPBACK else f"port:{host}:{port}"

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.close()
        self._stack.close()

    async def run(self) -> None:
        """Serve clients until every line has ended."""
        async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(self._listen, listener, clients)
            await self.clients.wait_for_end()
            nursery.cancel_scope.cancel()

    async def _listen(self, listener: trio.socket.SocketType, clients: trio.Nursery) -> None:
        while True:
            client = await accept(listener)
            index = await self.clients.take(client)
            if index is None:
                refuse(client, self.clients.refusal())
            else:
                clients.start_soon(self._serve, client, index)

    async def _serve(self, client: trio.socket.SocketType, index: int) -> None:
        try:
            with client, ignoring_departure():
                _set_options(client)
                await _converse(client, self.clients.taps[index])
        finally:
            self.clients.leave(index)


def _set_options(client: trio.socket.SocketType) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            client.setsockopt(socket.IPPROTO_TCP, option, value)


async def _converse(client: trio.socket.SocketType, tap: Tap) -> None:
    telnet = Telnet()
    stream = trio.SocketStream(client)
    sending = trio.Lock()

    async def send(data: bytes) -> None:
        async with sending:
            await stream.send_all(telnet.encode(data))

    async def reply() -> None:
        if telnet.replies:
            async with sending:
                await stream.send_all(telnet.take_replies())

    async def receive() -> bytes:
        while data := await stream.receive_some(PIECE):
            keys = b""
            for event in telnet.receive(data):
                if isinstance(event, Resized):
                    tap.end.resize(event.rows, event.columns)
                else:
                    keys += event.data
            await reply()
            if keys:
                return keys
        return b""

    await reply()
    await converse(tap, receive, send, is_connected(client))


def open_port(channel: ChannelSpec, tap: Tap, surroundings: Surroundings) -> tuple[Server, bool]:
    """The server at the channel's address, and whether it is a new one, to be run and closed."""
    found = surroundings.ports.get(channel.address)
    # Port 0 is another one each time.
    new = found is None or channel.address[1] == 0
    server = Server(channel.address) if new else found
    assert isinstance(server, Server)
    surroundings.ports[channel.address] = server
    server.clients.taps.append(tap)
    return server, new
