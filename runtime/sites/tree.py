"""Requests as directories: what a guest has at /requests.

next                    read   the number of the next request, when there is one
N/method, path, query   read   what is asked; `path` has its escapes, `url` is path and query
N/headers/NAME          read   in small letters
N/peer                  read   the client's address
N/body                  read   as it comes
N/response/status       write  three digits; 200 if nothing is said
N/response/headers/NAME write
N/response/body         write  from the first byte on status and headers count; closing it ends the answer
N/cgi/*                        what `cgi.c` reads and writes, where scripts answer by CGI
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from runtime.sites import cgi
from runtime.sites.config import Mode
from runtime.sites.exchange import Exchange
from runtime.sites.fastcgi_server import FastCgiServer
from runtime.sites.http_server import HttpServer
from umlfs.externfs.calls import instant
from umlfs.externfs.contents import Contents, Stream
from umlfs.externfs.node import Child, Directory, File, Fixed, Node, Text
from umlfs.filesystem import Caller
from umlfs.host.syscalls import failure

Next = Callable[[], Awaitable[Exchange | None]]
"""The next request, when there is one; None for a reader that is to take no more."""


Read = Callable[[int], Awaitable[bytes]]
"""At most so many bytes; nothing at the end."""


class Requests(Directory):
    """All of one site that are under way."""

    def __init__(self, next_request: Next) -> None:
        self._under_way: dict[str, Directory] = {}
        self._next = Feed(next_request)

    def add(self, exchange: Exchange, script: Script | None = None) -> None:
        """Show one, which `script` answers by CGI, or a process that loops."""
        self._under_way[str(exchange.number)] = directory(exchange, script)

    def drop(self, exchange: Exchange) -> None:
        """It is over."""
        self._under_way.pop(str(exchange.number), None)

    @instant
    async def children(self) -> Iterable[Child]:
        return [("next", self._next), *self._under_way.items()]

    @instant
    async def lookup(self, name: str) -> Node:
        found = self._next if name == "next" else self._under_way.get(name)
        if found is None:
            raise failure(errno.ENOENT)
        return found


@dataclass(frozen=True, slots=True)
class Script:
    """Of a site that answers by CGI, or by a server of its own."""

    site: str
    path: str
    mode: Mode = Mode.CGI


def directory(exchange: Exchange, script: Script | None = None) -> Directory:
    """One request."""
    request = exchange.request
    headers: dict[str, Node] = {}
    for name, value in request.headers:
        text = name.decode("latin-1").lower()
        if text not in ("", ".", "..") and "/" not in text and len(name) < 256:
            before = headers.get(text)
            headers[text] = Text(
                (before.data.rstrip(b"\n") + b", " if isinstance(before, Text) else b"") + value + b"\n"
            )
    url = request.path.encode() + (b"?" + request.query if request.query else b"")
    body = OutputFile(exchange.write, exchange.finish)
    response = Fixed({"status": StatusFile(exchange), "headers": Headers(exchange), "body": body})
    by_cgi = {} if script is None else {"cgi": _cgi(exchange, script)}
    return Fixed(
        by_cgi
        | {
            "method": Text(request.method + "\n"),
            "path": Text(request.path + "\n"),
            "query": Text(request.query + b"\n"),
            "url": Text(url + b"\n"),
            "peer": Text(request.peer + "\n"),
            "headers": Fixed(headers),
            "body": BodyFile(exchange),
            "response": response,
        }
    )


def _cgi(exchange: Exchange, script: Script) -> Directory:
    if script.mode.by_socket:
        return _server(exchange, script)
    output, errors = cgi.Output(exchange), cgi.Errors(script.site)
    variables = cgi.environment(exchange, script.path)
    text = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())
    return Fixed(
        {
            "environment": Text(text),
            "pid": SessionNumber(exchange),
            "input": BodyFile(exchange),
            "output": OutputFile(output.write, output.close),
            "errors": OutputFile(errors.write, lambda: None),
        }
    )


def _server(exchange: Exchange, script: Script) -> Directory:
    """What goes over a connection with a server in the guest. BadAnswer."""
    fast = script.mode is Mode.FASTCGI
    server = FastCgiServer(exchange, script.site) if fast else HttpServer(exchange)
    errors = cgi.Errors(script.site)
    return Fixed(
        {
            "environment": Text(b""),
            "pid": SessionNumber(exchange),
            "input": BodyFile(exchange, server.read),
            "output": OutputFile(server.write, server.close),
            "errors": OutputFile(errors.write, lambda: None),
        }
    )


class Feed(File):
    """Who opens it gets one number."""

    mode = 0o444
    size = 0

    def __init__(self, next_request: Next) -> None:
        self._next_request = next_request

    @instant
    async def open(self, flags: int) -> Contents:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise failure(errno.EACCES)
        return _Number(self._next_request)


class _Number(Stream):
    def __init__(self, next_request: Next) -> None:
        self._next_request = next_request
        self._rest: bytes | None = None

    @instant  # it waits, but for as long as it likes
    async def read(self, offset: int, length: int) -> bytes:
        if self._rest is None:
            exchange = await self._next_request()
            self._rest = b"" if exchange is None else b"%d\n" % exchange.number
        found, self._rest = self._rest[:length], self._rest[length:]
        return found


class BodyFile(File):
    mode = 0o444
    size = 0

    def __init__(self, exchange: Exchange, read: Read | None = None) -> None:
        """With `read`, what it gives instead of the body."""
        self._exchange = exchange
        self._read = read or exchange.request.body.read

    @instant
    async def open(self, flags: int) -> Contents:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise failure(errno.EACCES)
        return _Incoming(self._exchange, self._read)


class _Incoming(Stream):
    def __init__(self, exchange: Exchange, read: Read) -> None:
        self._exchange = exchange
        self._read = read

    @instant
    async def read(self, offset: int, length: int) -> bytes:
        if self._exchange.over:
            raise failure(errno.EIO)
        return await self._read(length)


class StatusFile(File):
    mode = 0o666

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @instant
    async def read(self) -> bytes:
        return b"%d\n" % self._exchange.status

    @instant
    async def write(self, data: bytes) -> None:
        self._exchange.set_status(data)


class HeaderFile(File):
    mode = 0o666

    def __init__(self, exchange: Exchange, name: str) -> None:
        self._exchange = exchange
        self._name = name

    @property
    def key(self) -> tuple[Exchange, str]:
        return self._exchange, self._name

    @instant
    async def read(self) -> bytes:
        return self._exchange.headers.get(self._name.lower().encode(), b"") + b"\n"

    @instant
    async def write(self, data: bytes) -> None:
        self._exchange.set_header(os.fsencode(self._name), data)


class Headers(Directory):
    mode = 0o777

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @instant
    async def children(self) -> Iterable[Child]:
        return [(name.decode(), HeaderFile(self._exchange, name.decode())) for name in self._exchange.headers]

    @instant
    async def create(self, name: str, mode: int, caller: Caller) -> Node:
        self._exchange.set_header(os.fsencode(name), b"")
        return HeaderFile(self._exchange, name.lower())


class SessionNumber(File):
    """Takes the number of the script's session."""

    mode = 0o200

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @instant
    async def write(self, data: bytes) -> None:
        word = data.strip()
        if not word.isdigit() or len(word) > 9:
            raise failure(errno.EINVAL)
        self._exchange.session = int(word)


Write = Callable[[bytes], Awaitable[None]]


class OutputFile(File):
    """Takes bytes as they come; `close` is told the end."""

    mode = 0o222
    size = 0

    def __init__(self, write: Write, close: Callable[[], None]) -> None:
        self._write = write
        self._close = close

    @instant
    async def open(self, flags: int) -> Contents:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise failure(errno.EACCES)
        return _Outgoing(self._write, self._close)


class _Outgoing(Stream):
    def __init__(self, write: Write, close: Callable[[], None]) -> None:
        self._write = write
        self._close = close

    @instant
    async def write(self, offset: int, data: bytes) -> None:
        await self._write(data)

    @instant
    async def close(self) -> None:
        self._close()
