"""The switch of old: clients come by the protocol of uml_switch, and frames are datagrams."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from runtime.network.cable import TURN, WAITING_MAX
from runtime.network.switch import FRAME_MAX, Port, Switch
from runtime.network.tap_port import serve_tap
from umlfs.wire import uml_switch
from umlfs.wire.uml_switch import ProtocolError

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 10.0
"""How long a client may take to say what it wants."""
PORTS_MAX: Final = 1024
RETRY_SECONDS: Final = 0.001
"""Until a client whose socket was full is tried again."""


class Outlet:
    """The way to one client, by the socket that it expects frames from, and may have connected to."""

    def __init__(self, data: socket.socket, address: bytes) -> None:
        self._data = data
        self._address = address
        self._waiting: deque[bytes] = deque()
        self._room = trio.Event()

    def send(self, frame: bytes) -> bool:
        """Send a frame, or have it wait; False if too many do, or the client is gone."""
        if not self._waiting:
            try:
                self._data.sendto(frame, self._address)
                return True
            except BlockingIOError:
                pass
            except OSError:
                return False
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(frame)
        self._room.set()
        return True

    async def write_waiting(self) -> None:
        """Send what waits. The kernel tells nobody when one of many readers has room: it is tried again and again."""
        while True:
            await self._room.wait()
            self._room = trio.Event()
            while self._waiting:
                await trio.sleep(RETRY_SECONDS)
                with contextlib.suppress(BlockingIOError):
                    while self._waiting:
                        self._data.sendto(self._waiting[0], self._address)
                        self._waiting.popleft()


@dataclass(slots=True)
class SwitchServer:
    """One switch with its sockets."""

    switch: Switch
    tell: Callable[[str], None]
    _ports: dict[bytes, Port] = field(default_factory=dict)
    """By where their frames come from."""
    _count: int = 0

    async def serve(
        self, control: socket.socket, data: socket.socket, taps: list[int], *, ready: Callable[[], None]
    ) -> None:
        """Serve clients that come at `control`, whose frames come at `data`, until cancelled. The sockets and the
        descriptors `taps` stay the caller's."""
        data.setblocking(False)
        control.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, data)
            for tap in taps:
                nursery.start_soon(serve_tap, self.switch, "tap", tap)
            ready()
            while True:
                await trio.lowlevel.wait_readable(control)
                with contextlib.suppress(BlockingIOError):
                    connection, _ = control.accept()
                    if len(self._ports) < PORTS_MAX:
                        nursery.start_soon(self._serve_client, connection, data)
                    else:
                        connection.close()

    async def _read(self, data: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(data)
            with contextlib.suppress(BlockingIOError):
                for _ in range(TURN):
                    frame, source = data.recvfrom(FRAME_MAX + 1)
                    port = self._ports.get(_key(source))
                    if port is not None:
                        self.switch.forward(port, frame)

    # Clients ----------------------------------------------------------------------------------

    async def _serve_client(self, connection: socket.socket, data: socket.socket) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        async with stream:
            try:
                request = await _request(stream)
                if request is None:
                    return
                await self._keep(stream, request, data)
            except ProtocolError as error:
                self.tell(str(error))
            except (OSError, trio.BrokenResourceError) as error:
                self.tell(f"Disconnect: {error.__cause__ or error}")

    async def _keep(self, stream: trio.SocketStream, request: uml_switch.Request, data: socket.socket) -> None:
        """A client's port, for as long as it holds the control connection."""
        self._count += 1
        number = self._count
        outlet = Outlet(data, request.name)
        port = Port(str(number), outlet.send)
        key = _key(request.name)
        self._ports[key] = port
        self.switch.add(port)
        self.tell(f"New connection: port {number}")
        try:
            if request.wants_reply:
                await stream.send_all(uml_switch.encode_reply(_key(data.getsockname())))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outlet.write_waiting)
                if await stream.receive_some(uml_switch.REQUEST_MAX):
                    self.tell("Bad request")
                nursery.cancel_scope.cancel()
        finally:
            self.switch.remove(port)
            if self._ports.get(key) is port:
                del self._ports[key]
            counts = port.counts
            lost = f", {counts.dropped} frames lost for lack of room" if counts.dropped else ""
            self.tell(f"Disconnect: port {number}{lost}")


def _key(address: str | bytes) -> bytes:
    """An address, as all of its 108 bytes."""
    return (os.fsencode(address) if isinstance(address, str) else address).ljust(uml_switch.PATH_SIZE, b"\0")


async def _request(stream: trio.SocketStream) -> uml_switch.Request | None:
    """What the client asks for; None if it hangs up, or takes too long. ProtocolError."""
    data = b""
    with trio.move_on_after(REQUEST_SECONDS):
        while piece := await stream.receive_some(uml_switch.REQUEST_MAX - len(data)):
            data += piece
            request = uml_switch.decode_request(data)
            if request is not None:
                return request
    return None
