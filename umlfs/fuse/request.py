"""What carries out requests: the types that the parts of a session share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from umlfs.buffers import Buffers
from umlfs.filesystem import Caller
from umlfs.wire import fuse as wire

Handler = Callable[[wire.Header, bytes], Awaitable[bytes]]
"""From header and body to the answer."""
Mover = Callable[[wire.Header, Buffers, Buffers], Awaitable[int]]
"""Reads the body, or contents, from the first buffers, and writes the answer into the second; returns its length."""


def caller(header: wire.Header) -> Caller:
    """For whom a request is made."""
    return Caller(header.uid, header.gid, header.pid)
