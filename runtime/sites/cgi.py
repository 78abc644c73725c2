"""CGI/1.1 (RFC 3875): a process for each request, whose output begins with headers."""

from __future__ import annotations

import errno
import logging
from typing import Final

from runtime.sites.exchange import HEADERS_MAX, BadAnswer, Exchange, is_header
from umlfs.host.syscalls import failure

log = logging.getLogger(__name__)

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SAID_MAX: Final = 4096
"""Bytes of a script's errors that the log gets."""


def environment(exchange: Exchange, script: str) -> dict[str, str]:
    """The variables of a request (RFC 3875, 4.1), and where it is as files."""
    request = exchange.request
    found = {
        "PATH": DEFAULT_PATH,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "umlfs",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": request.host,
        "HTTPS": "on" if request.secure else "",
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.path,
        "PATH_INFO": request.path,
        "SCRIPT_NAME": "",
        "SCRIPT_FILENAME": script,
        "QUERY_STRING": request.query.decode("latin-1"),
        "REMOTE_ADDR": request.peer,
        "REQUEST": f"/requests/{exchange.number}",
    }
    for name, value in request.headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key == "PROXY" or not key.replace("_", "").isalnum():  # HTTP_PROXY would be taken for the user's own
            continue
        text = value.decode("latin-1")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            found[key] = text
        else:
            key = f"HTTP_{key}"
            found[key] = f"{found[key]}, {text}" if key in found else text
    return {key: value for key, value in found.items() if "\0" not in value}


def parse_head(head: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers, names in small letters. BadAnswer."""
    status, headers = 200, list[tuple[bytes, bytes]]()
    for line in head.replace(b"\r\n", b"\n").split(b"\n"):
        name, colon, value = line.partition(b":")
        value = value.strip()
        if not colon or not is_header(name, value):
            raise BadAnswer(f"no header: {line[:60]!r}")
        if name.lower() == b"status":
            word = value.split(b" ", 1)[0]
            if not word.isdigit() or len(word) != 3 or not 200 <= int(word) <= 599:
                raise BadAnswer(f"no status: {value[:60]!r}")
            status = int(word)
        else:
            headers.append((name.lower(), value))
            if name.lower() == b"location" and status == 200:
                status = 302
    return status, headers


class Output:
    """What a script prints: headers, an empty line, the body."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._head = bytearray()

    async def write(self, data: bytes) -> None:
        """Some of it. EPIPE when nobody wants it."""
        if self._exchange.begun.is_set():
            await self._exchange.write(data)
            return
        self._head += data
        for end in (b"\r\n\r\n", b"\n\n"):
            head, blank, rest = bytes(self._head).partition(end)
            if blank and len(head) <= HEADERS_MAX:
                await self._begin(head, rest)
                return
        if len(self._head) > HEADERS_MAX:
            self._exchange.fail(f"more than {HEADERS_MAX} bytes of headers")
            raise failure(errno.EPIPE)

    async def _begin(self, head: bytes, rest: bytes) -> None:
        try:
            self._exchange.status, headers = parse_head(head)
            for name, value in headers:
                self._exchange.add_header(name, value)
        except BadAnswer as error:
            self._exchange.fail(str(error))
            raise failure(errno.EPIPE) from None
        self._exchange.begun.set()
        if rest:
            await self._exchange.write(rest)

    def close(self) -> None:
        """It prints no more."""
        if self._exchange.begun.is_set():
            self._exchange.finish()
        else:
            self._exchange.fail("no headers")


class Errors:
    """What a script complains of, for the log."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._said = 0

    async def write(self, data: bytes) -> None:
        """Some of it. The log does not get more than `SAID_MAX`."""
        if self._said < SAID_MAX:
            log.info("%s: %s", self._site, data[: SAID_MAX - self._said].decode(errors="replace").rstrip())
        self._said += len(data)
