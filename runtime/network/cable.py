"""The socket of a port: frames in and out without waiting for a peer that does not read."""

from __future__ import annotations

import heapq
import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from runtime.network.switch import FRAME_MAX, Impairment

TURN: Final = 64
"""Frames that are taken before other ports get their turn."""
WAITING_MAX: Final = 512
"""Frames that wait for a peer that does not read; more are dropped, and counted."""
BUFFER: Final = 4 << 20
"""Bytes of the socket's own buffer, as far as the host allows."""


class Cable:
    """A connected socket that keeps the bounds of messages, one frame each. `run` is its whole life."""

    def __init__(self, connection: socket.socket, impairment: Impairment | None = None) -> None:
        """The socket stays the caller's."""
        connection.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._socket = connection
        self._waiting: deque[bytes] = deque()
        self._room = trio.Event()
        self._impairment = impairment or Impairment()
        self._late: list[tuple[float, int, bytes, Callable[[bytes], object]]] = []
        self._numbers = itertools.count()
        self._more = trio.Event()
        self._free = {"in": 0.0, "out": 0.0}
        """Until when each direction is busy, by the rate of the link."""

    @property
    def is_impaired(self) -> bool:
        """Whether the link suffers anything."""
        return bool(self._impairment)

    def send(self, frame: bytes) -> bool:
        """Send a frame to the peer, or have it wait; False if too many do."""
        if self._impairment:
            return self._delay("out", frame, self._send_now)
        return self._send_now(frame)

    def _send_now(self, frame: bytes) -> bool:
        if not self._waiting:
            try:
                self._socket.send(frame)
                return True
            except BlockingIOError:
                pass
            except OSError:
                return False  # the peer is gone: whoever reads will notice
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(frame)
        self._room.set()
        return True

    async def run(self, take: Callable[[bytes], object]) -> None:
        """Give each frame that comes to `take`, until the peer is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write_waiting)
            if self._impairment:
                nursery.start_soon(self._deliver_late)
            await self._read(take)
            nursery.cancel_scope.cancel()

    async def _read(self, take: Callable[[bytes], object]) -> None:
        receive, size = self._socket.recv, FRAME_MAX + 1
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                for _ in range(TURN):
                    frame = receive(size)
                    if not frame:
                        return
                    if self._impairment:
                        self._delay("in", frame, take)
                    else:
                        take(frame)
            except BlockingIOError:
                continue
            except OSError:
                return

    async def write_waiting(self) -> None:
        """Send what waits, as the peer reads."""
        while True:
            await self._room.wait()
            self._room = trio.Event()
            while self._waiting:
                await trio.lowlevel.wait_writable(self._socket)
                try:
                    while self._waiting:
                        self._socket.send(self._waiting[0])
                        self._waiting.popleft()
                except BlockingIOError:
                    continue
                except OSError:
                    return

    # A bad link -------------------------------------------------------------------------------

    def _delay(self, direction: str, frame: bytes, take: Callable[[bytes], object]) -> bool:
        it = self._impairment
        if it.loses() or len(self._late) >= WAITING_MAX * 4:
            return False
        now = trio.current_time()
        begin = max(now, self._free[direction])
        self._free[direction] = begin + (len(frame) * 8 / it.rate if it.rate else 0.0)
        heapq.heappush(self._late, (self._free[direction] + it.delay, next(self._numbers), frame, take))
        self._more.set()
        return True

    async def _deliver_late(self) -> None:
        while True:
            if not self._late:
                self._more = trio.Event()
                await self._more.wait()
            due = self._late[0][0]
            if due > trio.current_time():
                self._more = trio.Event()
                with trio.move_on_at(due):
                    await self._more.wait()
                continue
            _, _, frame, take = heapq.heappop(self._late)
            take(frame)
