"""One request and its answer, between the web server and a script in a guest."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from umlfs.host.syscalls import failure

HEADERS_MAX: Final = 64 << 10
"""Bytes of an answer's head."""
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
_UNSPEAKABLE: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer", b"te"})
"""What is between the server and the client alone."""

Receive = Callable[[], Awaitable[Any]]


class BadAnswer(Exception):
    """A script answered with what is no answer: 502, and a line in the log."""


class Body:
    """What the client sends, as far as it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._rest = b""
        self._ended = False
        self._lock = trio.Lock()

    async def read(self, length: int) -> bytes:
        """Wait for some of it; nothing at its end. EIO if the client is gone."""
        async with self._lock:
            while not self._rest and not self._ended:
                message = await self._receive()
                if message["type"] != "http.request":
                    raise failure(errno.EIO)
                self._rest = message.get("body", b"")
                self._ended = not message.get("more_body", False)
            found, self._rest = self._rest[:length], self._rest[length:]
            return found


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the client asks."""

    method: str
    path: str
    """As it was sent: with its escapes, without the query."""
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    peer: str
    host: str
    secure: bool
    body: Body


@dataclass(eq=False)
class Exchange:
    """The request, and the answer while it comes to be."""

    number: int
    request: HttpRequest
    status: int = 200
    headers: dict[bytes, bytes] = field(default_factory=dict)
    more_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Those that are there once more, as Set-Cookie may be."""
    begun: trio.Event = field(default_factory=trio.Event)
    """Status and headers count."""
    over: bool = False
    """Nobody waits for it any more."""
    broken: bool = False
    """It ended before all was said."""
    failure: BadAnswer | None = None
    """Why there is no answer."""
    session: int = 0
    """Of the processes that answer, in the guest; 0 for none of its own."""
    finished: bool = False
    """All of the answer is there."""

    def __post_init__(self) -> None:
        self._send, self._pieces = trio.open_memory_channel[bytes](0)

    @property
    def pieces(self) -> trio.MemoryReceiveChannel[bytes]:
        """The answer's body."""
        return self._pieces

    def set_status(self, text: bytes) -> None:
        """EINVAL, EBUSY: it is on its way already."""
        self._check()
        word = text.strip().split(b" ", 1)[0]
        if not word.isdigit() or len(word) != 3 or not 200 <= int(word) <= 599:
            raise failure(errno.EINVAL)
        self.status = int(word)

    def set_header(self, name: bytes, value: bytes) -> None:
        """EINVAL for what is no header, E2BIG for too many."""
        self._check()
        value = value.strip()
        if not is_header(name, value):
            raise failure(errno.EINVAL)
        if sum(map(len, (*self.headers, *self.headers.values(), name, value))) > HEADERS_MAX:
            raise failure(errno.E2BIG)
        self.headers[name.lower()] = value

    def add_header(self, name: bytes, value: bytes) -> None:
        """One more of the answer's, whose name may be there already."""
        if self.headers.setdefault(name.lower(), value) is not value:
            self.more_headers.append((name.lower(), value))

    def _check(self) -> None:
        if self.begun.is_set() or self.over:
            raise failure(errno.EBUSY)

    async def write(self, data: bytes) -> None:
        """A part of the answer's body. EPIPE when nobody wants it."""
        self.begun.set()
        try:
            await self._send.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise failure(errno.EPIPE) from None

    def finish(self) -> None:
        """All of the answer is there."""
        self.finished = True
        self.begun.set()
        self._send.close()

    def fail(self, why: str) -> None:
        """There is no answer, or no rest of it."""
        self.failure, self.broken = BadAnswer(why), True
        self.finish()

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.over = True
        self._pieces.close()


def is_header(name: bytes, value: bytes) -> bool:
    """Whether a script may say it."""
    return bool(TOKEN.match(name)) and not _UNSPEAKABLE.search(value) and name.lower() not in HOP_BY_HOP
