"""HTTP/1.1 with a server in the guest, a connection for each request: what it is sent, and what its answer means."""

from __future__ import annotations

import errno
from typing import Final

import h11

from runtime.sites.exchange import HEADERS_MAX, HOP_BY_HOP, BadAnswer, Exchange, is_header
from umlfs.host.syscalls import failure

_OURS: Final = HOP_BY_HOP | {b"expect", b"x-forwarded-for", b"x-forwarded-proto"}
"""Headers that the server has from us, or not at all."""


class HttpServer:
    """One exchange with it. `read` gives what to send, `write` and `close` take what comes."""

    def __init__(self, exchange: Exchange) -> None:
        """BadAnswer for a request that cannot be said in HTTP/1.1."""
        self._exchange = exchange
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_MAX)
        try:
            self._rest = self._connection.send(_head(exchange)) or b""
        except h11.LocalProtocolError as error:
            raise BadAnswer(f"the request cannot be passed on: {error}") from None
        self._ended = False

    async def read(self, length: int) -> bytes:
        """Some of the request; nothing at its end."""
        if not self._rest and not self._ended:
            data = await self._exchange.request.body.read(length)
            self._ended = not data
            self._rest = self._said(h11.Data(data=data) if data else h11.EndOfMessage())
        found, self._rest = self._rest[:length], self._rest[length:]
        return found

    def _said(self, event: h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._connection.send(event) or b""
        except h11.LocalProtocolError:  # not as long as its Content-Length
            raise failure(errno.EIO) from None

    async def write(self, data: bytes) -> None:
        """Some of the answer. EPIPE when nobody wants more."""
        if self._exchange.finished:
            raise failure(errno.EPIPE)
        try:
            self._connection.receive_data(data)
            while await self._heard(self._connection.next_event()):
                pass
        except (h11.RemoteProtocolError, BadAnswer) as error:
            self._exchange.fail(f"no HTTP: {error}")
            raise failure(errno.EPIPE) from None

    async def _heard(self, event: object) -> bool:
        """Whether there may be more."""
        if isinstance(event, h11.Response):
            self._begin(event)
        elif isinstance(event, h11.Data):
            await self._exchange.write(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._exchange.finish()
            return False
        return isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed)

    def _begin(self, response: h11.Response) -> None:
        for name, value in response.headers:
            if name not in HOP_BY_HOP:
                if not is_header(name, value):
                    raise BadAnswer(f"no header: {name[:60]!r}")
                self._exchange.add_header(name, value)
        self._exchange.status = response.status_code
        self._exchange.begun.set()

    def close(self) -> None:
        """It has closed the connection."""
        if self._exchange.finished:
            return
        try:
            self._connection.receive_data(b"")
            whole = isinstance(self._connection.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            whole = False
        if whole:
            self._exchange.finish()
        else:
            self._exchange.fail("the server closed the connection before all was said")


def _head(exchange: Exchange) -> h11.Request:
    request = exchange.request
    names = {name.lower() for name, _ in request.headers}
    headers = [(name, value) for name, value in request.headers if name.lower() not in _OURS]
    if b"host" not in names:
        headers.insert(0, (b"Host", request.host.encode("latin-1")))
    if b"content-length" not in names and (b"transfer-encoding" in names or request.method not in ("GET", "HEAD")):
        headers.append((b"Transfer-Encoding", b"chunked"))
    headers += [
        (b"X-Forwarded-For", request.peer.encode("latin-1")),
        (b"X-Forwarded-Proto", b"https" if request.secure else b"http"),
        (b"Connection", b"close"),
    ]
    target = request.path.encode("latin-1") + (b"?" + request.query if request.query else b"")
    return h11.Request(method=request.method.encode("latin-1"), target=target, headers=headers)
