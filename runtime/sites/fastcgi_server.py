"""FastCGI with a server in the guest, a connection for each request."""

from __future__ import annotations

import errno
import os

from runtime.sites import cgi
from runtime.sites.exchange import Exchange
from runtime.sites.fastcgi_wire import CONTENT_MAX, FormatError, Kind, Parser, begin, record
from umlfs.host.syscalls import failure

HEADER: int = len(record(Kind.STDIN))


class FastCgiServer:
    """One exchange with it. `read` gives what to send, `write` and `close` take what comes."""

    def __init__(self, exchange: Exchange, site: str) -> None:
        self._exchange = exchange
        self._output, self._errors = cgi.Output(exchange), cgi.Errors(site)
        self._parser = Parser()
        variables = cgi.environment(exchange, f"/site{exchange.request.path}")
        variables |= {"SCRIPT_NAME": exchange.request.path, "DOCUMENT_ROOT": "/site"}
        self._rest = begin({os.fsencode(name): os.fsencode(value) for name, value in variables.items()})
        self._ended = False

    async def read(self, length: int) -> bytes:
        """Some of the request; nothing at its end."""
        if not self._rest and not self._ended:
            data = await self._exchange.request.body.read(min(CONTENT_MAX, max(length - HEADER, 1)))
            self._ended = not data
            self._rest = record(Kind.STDIN, data)
        found, self._rest = self._rest[:length], self._rest[length:]
        return found

    async def write(self, data: bytes) -> None:
        """Some of the answer. EPIPE when nobody wants more."""
        if self._exchange.finished:
            raise failure(errno.EPIPE)
        try:
            for kind, content in self._parser.feed(data):
                if kind == Kind.STDOUT and content:
                    await self._output.write(content)
                elif kind == Kind.STDERR and content:
                    await self._errors.write(content)
                elif kind == Kind.END_REQUEST:
                    self._output.close()
                    return
        except FormatError as error:
            self._exchange.fail(f"no FastCGI: {error}")
            raise failure(errno.EPIPE) from None

    def close(self) -> None:
        """It has closed the connection."""
        if not self._exchange.finished:
            self._exchange.fail("the server closed the connection before all was said")
