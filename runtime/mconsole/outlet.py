"""The way back to one client of the public socket."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import trio

REPLY_SECONDS: Final = 5.0
"""How long a client may leave a reply waiting. Its queue takes some ten datagrams, so most never wait."""

RETRY_SECONDS: Final = 0.01

SHARE: Final = 4096
"""How much of the public socket's buffer one client may fill: all that may be served at a time fit into the 200 KiB
that every host allows."""


class Gone(Exception):
    """The client does not take replies any more."""


class Outlet:
    """Sends replies to `address`. A context manager.

    What waits in a client's queue counts against the socket it was sent from. So each client has a socket of its own
    here: those who do not read fill that, and delay nobody else. A client that has connected its socket to the
    `public` one takes datagrams from that alone, and gets them from there, a few at a time.
    """

    def __init__(self, address: str | bytes | None, public: socket.socket) -> None:
        self._address = address
        self._public = public

    def __enter__(self) -> Self:
        self._own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._own.setblocking(False)
        self._connected = False
        self._before: int | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.close()

    async def send(self, datagrams: Iterable[bytes]) -> None:
        """Send a reply. Gone if the client is, or takes it too slowly; nothing happens if it has no name."""
        if self._address is None:
            return
        try:
            for datagram in datagrams:
                with trio.fail_after(REPLY_SECONDS):
                    await self._send_one(datagram, self._address)
        except (OSError, trio.TooSlowError) as error:
            raise Gone(str(error)) from None

    async def _send_one(self, datagram: bytes, address: str | bytes) -> None:
        if not self._connected:
            try:
                self._own.connect(address)
                self._connected = True
            except PermissionError:
                await self._send_from_public(datagram, address)
                return
        while True:
            try:
                self._own.send(datagram)
                return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._own)

    async def _send_from_public(self, datagram: bytes, address: str | bytes) -> None:
        """Nothing tells when there is room: try again."""
        if self._before is None:
            self._before = _unread(self._public)
        while True:
            try:
                if _unread(self._public) > self._before + SHARE:
                    raise BlockingIOError
                self._public.sendto(datagram, address)
                return
            except BlockingIOError:
                await trio.sleep(RETRY_SECONDS)


def _unread(sender: socket.socket) -> int:
    """How many bytes of its buffer what was sent and not read yet takes."""
    return int.from_bytes(fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
