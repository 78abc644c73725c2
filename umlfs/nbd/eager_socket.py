"""A stream socket for request and reply: it waits a moment itself before it leaves the waiting to trio.

A client that sends its next request when it has the reply to the last does so within microseconds. Being
woken by trio's loop for it costs several times as long as waiting in the kernel for just that. So whoever is done
with a request waits for the next a moment (`PATIENCE_SECONDS`), unless the last such moment was in vain, another
socket of the same `Crowd` has something, or the loop was held long enough (`TURN_SECONDS`).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import Final

import trio

PATIENCE_SECONDS: Final = 100e-6
"""How long the loop may be held to wait for the peer: several times what a lively one needs."""

LIVELY_SECONDS: Final = 250e-6
"""A peer whose bytes came within this time of our beginning to wait is worth being patient with."""

TURN_SECONDS: Final = 2e-3
"""How long one socket may hold the loop before other tasks run."""

SELECT_MAX: Final = 1024
"""select(2) takes descriptors below this. Of the waiting calls it is the one with a timeout in microseconds."""

_clock = time.perf_counter


class Crowd:
    """The sockets that one server serves."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        """Descriptors of those that trio waits for: whoever holds the loop looks at them too."""
        self.busy = 0
        """How much work waits for trio: threads that will be done, for example. While there is any, nobody holds the
        loop to wait for a peer."""
        self.members = 0
        """How many sockets there are."""

    def add_busy(self, count: int) -> None:
        """`count` more works wait for trio (fewer, if negative)."""
        self.busy += count


class EagerSocket:
    """A connected stream socket that belongs to a `crowd`. Closes it in the end."""

    def __init__(self, connection: socket.socket, crowd: Crowd) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._descriptor = connection.fileno()
        self._crowd = crowd
        self._selectable = self._descriptor < SELECT_MAX
        self._lively = False
        self._turn_ends = _clock() + TURN_SECONDS

    async def turn(self) -> None:
        """Let other tasks run if this one held the loop for long enough."""
        if _clock() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = _clock() + TURN_SECONDS

    async def receive_into(self, space: memoryview) -> int:
        """Receive at least one byte; 0 when the peer has hung up. OSError when the connection broke."""
        await self.turn()
        while True:
            try:
                return self._socket.recv_into(space)
            except BlockingIOError:
                pass
            if not self._await_now(for_reading=True):
                await self._wait_readable()

    def send_now(self, buffers: Sequence[memoryview]) -> int:
        """Send what the socket takes of `buffers`, and how much that was; 0 if it takes nothing for now."""
        while True:
            try:
                return self._socket.sendmsg(buffers)
            except BlockingIOError:
                pass
            if not self._await_now(for_reading=False):
                return 0

    async def wait_writable(self) -> None:
        """Wait until `send_now` can send something."""
        await trio.lowlevel.wait_writable(self._socket)
        self._turn_ends = _clock() + TURN_SECONDS

    def close(self) -> None:
        """Hang up; whoever waits for this socket gets `trio.ClosedResourceError`."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def _wait_readable(self) -> None:
        begin = _clock()
        self._crowd.waiting.add(self._descriptor)
        try:
            await trio.lowlevel.wait_readable(self._socket)
        finally:
            self._crowd.waiting.discard(self._descriptor)
        now = _clock()
        self._lively = now - begin < LIVELY_SECONDS
        self._turn_ends = now + TURN_SECONDS

    def _await_now(self, for_reading: bool) -> bool:
        """Hold the loop until the peer lets us go on; False if it is not worth it or took too long."""
        if not self._lively or self._crowd.busy or not self._selectable or _clock() >= self._turn_ends:
            return False
        ours = [self._descriptor]
        others = [descriptor for descriptor in self._crowd.waiting if descriptor < SELECT_MAX]
        reading, writing = (ours + others, []) if for_reading else (others, ours)
        readable, writable, _ = select.select(reading, writing, [], PATIENCE_SECONDS)
        ready = self._descriptor in (readable if for_reading else writable)
        if not ready and not readable:
            self._lively = False
        return ready
