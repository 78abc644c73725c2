"""CGI/1.1 (RFC 3875): a process for each request, whose output begins with headers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import trio

from runtime.captive import Process
from runtime.captive.guest import User
from runtime.sites.exchange import HEADERS_MAX, BadAnswer, Exchange, is_header

log = logging.getLogger(__name__)

PIECE: Final = 64 << 10
SAID_MAX: Final = 4096
"""Bytes of a script's errors that the log gets."""


def environment(exchange: Exchange, script: str) -> dict[str, str]:
    """The variables of a request (RFC 3875, 4.1), and where it is as files."""
    request = exchange.request
    found = {
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


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers. BadAnswer."""
    status, headers = 200, dict[bytes, bytes]()
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
            headers[name.lower()] = value
            if name.lower() == b"location" and status == 200:
                status = 302
    return status, headers


async def answer(user: User, exchange: Exchange, handler: tuple[str, ...], site: str) -> None:
    """Have `handler` answer. BadAnswer; UmlError if it cannot be run."""
    variables: Mapping[str, str] = environment(exchange, handler[0])
    running = user.start(handler, directory="/site", environment=variables)
    async with running as process, trio.open_nursery() as nursery:
        nursery.start_soon(_feed, exchange, process)
        nursery.start_soon(_complain, process, site)
        try:
            await _pass_on(exchange, process)
        finally:
            nursery.cancel_scope.cancel()


async def _pass_on(exchange: Exchange, process: Process) -> None:
    head, rest = await _head(process)
    exchange.status, exchange.headers = parse_head(head)
    exchange.begun.set()
    while rest:
        await exchange.write(rest)
        rest = await process.stdout.receive_some(PIECE)
    exchange.finish()


async def _head(process: Process) -> tuple[bytes, bytes]:
    found = bytearray()
    while True:
        piece = await process.stdout.receive_some(PIECE)
        if not piece:
            status = await process.wait()  # UmlError, if it did not even start
            raise BadAnswer(f"no headers, and the exit status was {status}")
        found += piece
        for end in (b"\r\n\r\n", b"\n\n"):
            head, blank, rest = bytes(found).partition(end)
            if blank and len(head) <= HEADERS_MAX:
                return head, rest or await process.stdout.receive_some(PIECE)
        if len(found) > HEADERS_MAX:
            raise BadAnswer(f"more than {HEADERS_MAX} bytes of headers")


async def _feed(exchange: Exchange, process: Process) -> None:
    """The client's body is the script's input. One that does not want it need not read it."""
    try:
        while data := await exchange.request.body.read(PIECE):
            await process.stdin.send_all(data)
        await process.stdin.aclose()
    except (trio.BrokenResourceError, OSError):
        pass


async def _complain(process: Process, site: str) -> None:
    said = 0
    async for data in process.stderr:
        if said < SAID_MAX:
            log.info("%s: %s", site, data[: SAID_MAX - said].decode(errors="replace").rstrip())
        said += len(data)
