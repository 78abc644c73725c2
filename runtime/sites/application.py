"""The sites as an ASGI application, for a server on trio."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from runtime.sites.config import SiteConfig
from runtime.sites.exchange import BadAnswer, Body, Exchange, HttpRequest
from runtime.sites.site import Busy, Late, Site
from umlfs.errors import UmlError, sole

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

REASONS: Final = {404: "no such site", 502: "bad gateway", 503: "too many requests wait", 504: "no answer in time"}


class Sites:
    """The application. Whoever serves it does so within `running`."""

    def __init__(self, sites: Sequence[SiteConfig]) -> None:
        self.sites = {config.name: Site(config) for config in sites}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Guests come and go meanwhile; none is left."""
        async with trio.open_nursery() as nursery:
            for site in self.sites.values():
                nursery.start_soon(site.run)
            yield
            nursery.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("running is entered by whoever serves it")  # the server goes on without
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            raise RuntimeError(f"no answer to {scope['type']}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site(scope)
        if site is None:
            await refuse(send, 404)
            return
        begun = False
        try:
            async with site.answered(request_of(scope, receive)) as exchange:
                begun = True
                await _pass_on(exchange, send, site.config.time_limit)
        except Exception as group:
            status, why = _status(sole(group))
            log.warning("%s: %s %s: %s", site.config.name, scope["method"], scope["path"], why)
            if begun:  # the client must see that the answer is not whole
                raise ConnectionAbortedError(why) from None
            await refuse(send, status)

    def _site(self, scope: Scope) -> Site | None:
        host = _header(scope, b"host").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        return self.sites.get(name.rstrip("."))


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def request_of(scope: Scope, receive: Receive) -> HttpRequest:
    """What an ASGI server tells of a request."""
    client = scope.get("client")
    raw = scope.get("raw_path") or scope["path"].encode()
    return HttpRequest(
        method=scope["method"],
        path=raw.partition(b"?")[0].decode("latin-1"),
        query=scope.get("query_string", b""),
        headers=[(bytes(name), bytes(value)) for name, value in scope["headers"]],
        peer=client[0] if client else "",
        host=_header(scope, b"host").decode("latin-1").partition(":")[0],
        secure=scope.get("scheme") == "https",
        body=Body(receive),
    )


async def _pass_on(exchange: Exchange, send: Send, seconds: float) -> None:
    headers = [*exchange.headers.items(), *exchange.more_headers]
    await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
    while True:
        with trio.move_on_after(seconds) as limit:
            try:
                piece = await exchange.pieces.receive()
            except trio.EndOfChannel:
                break
        if limit.cancelled_caught:
            raise Late
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if exchange.broken:
        raise BadAnswer("the answer ended in its midst")
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _status(error: BaseException) -> tuple[int, str]:
    """What the client gets for it, and why."""
    if isinstance(error, Busy):
        return 503, REASONS[503]
    if isinstance(error, Late):
        return 504, REASONS[504]
    if isinstance(error, UmlError | BadAnswer):
        return 502, str(error)
    return 502, f"{type(error).__name__}: {error}"


async def refuse(send: Send, status: int) -> None:
    """An answer of our own."""
    body = f"{status} {REASONS[status]}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
