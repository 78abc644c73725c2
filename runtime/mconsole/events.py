"""What happens to a machine, told to whoever follows: the stream socket `events` in its directory.

A line for each event, a JSON object: `{"time": 1700000000.5, "machine": "debian", "event": "panic", "text": "…"}`. The
time is in seconds since 1970; `event` is one of `runtime.mconsole.wire.NoticeKind`, or `lost`: so many events (`text`)
came faster than this follower took them. What happened last comes first, for those who come late.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from runtime.host.peer_credentials import peer_of
from runtime.mconsole.datagrams import reachable
from runtime.mconsole.wire import Notification
from umlfs.host.listening import unix_listener

log = logging.getLogger(__name__)

RECENT: Final = 32
"""How many events are kept for those who come late."""

WAITING_MAX: Final = 256
"""How many events may wait for a follower who is slow; he misses the rest."""

FOLLOWERS_MAX: Final = 16

FLUSH_SECONDS: Final = 1.0
"""How long the last events may take to be read when the machine is gone."""

LINE_MAX: Final = 16384
"""The most bytes of a line: a notification's 512, written as \\u005cxNN in JSON, and the rest."""

LOST: Final = "lost"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a machine."""

    time: float
    """In seconds since 1970."""
    machine: str
    event: str
    text: str

    def encode(self) -> bytes:
        """The line that tells it."""
        fields = {"time": self.time, "machine": self.machine, "event": self.event, "text": self.text}
        return json.dumps(fields).encode() + b"\n"


def decode_event(line: bytes) -> Event | None:
    """The inverse of `Event.encode`; None for a line that is none."""
    try:
        fields = json.loads(line)
        return Event(float(fields["time"]), str(fields["machine"]), str(fields["event"]), str(fields["text"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


class _Follower:
    """One who follows, and what he has not taken yet."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._something = trio.Event()
        self._ended = False

    def offer(self, line: bytes) -> None:
        if len(self._lines) < WAITING_MAX:
            self._lines.append(line)
        else:
            self._lost += 1
        self._something.set()

    def end(self) -> None:
        self._ended = True
        self._something.set()

    async def write_to(self, stream: trio.abc.SendStream, machine: str) -> None:
        """Write what there is, until `end`."""
        while True:
            await self._something.wait()
            while self._lines:
                await stream.send_all(self._lines.popleft())
                if self._lost and not self._lines:
                    self._lines.append(Event(time.time(), machine, LOST, str(self._lost)).encode())
                    self._lost = 0
            if self._ended:
                return
            self._something = trio.Event()


class Publisher:
    """Tells the followers of a machine what happens."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._recent: deque[bytes] = deque(maxlen=RECENT)
        self._followers: set[_Follower] = set()
        self._ended = False
        self._left = trio.Event()

    def publish(self, notification: Notification) -> None:
        """Tell that this happened just now. Never waits."""
        line = Event(time.time(), self._machine, str(notification.kind), notification.text).encode()
        self._recent.append(line)
        for follower in self._followers:
            follower.offer(line)

    async def end(self) -> None:
        """Nothing more will be told: wait until all have taken what was."""
        self._ended = True
        for follower in self._followers:
            follower.end()
        while self._followers:
            self._left = trio.Event()
            await self._left.wait()

    async def tell(self, stream: trio.SocketStream) -> None:
        """Tell one follower what happened and what happens, until he hangs up."""
        if peer_of(stream.socket).uid != os.getuid() or len(self._followers) >= FOLLOWERS_MAX:
            log.info("a follower was refused")
            return
        follower = _Follower()
        for line in self._recent:
            follower.offer(line)
        if self._ended:
            follower.end()
        self._followers.add(follower)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_for_hangup, stream, nursery.cancel_scope)
                with contextlib.suppress(trio.BrokenResourceError):
                    await follower.write_to(stream, self._machine)
                nursery.cancel_scope.cancel()
        finally:
            self._followers.discard(follower)
            self._left.set()


async def _wait_for_hangup(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """A follower says nothing; whatever comes is dropped."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(LINE_MAX):
            pass
    scope.cancel()


@contextlib.asynccontextmanager
async def publishing(path: Path, machine: str) -> AsyncIterator[Publisher]:
    """Tell the events of the machine called `machine` to whoever connects to the socket at `path`.

    Leaving waits a second at most, for followers to take the last ones. UmlError if the socket cannot be made.
    """
    with unix_listener(path) as listener:
        publisher = Publisher(machine)
        doors = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, publisher.tell, doors)
            yield publisher
            with trio.move_on_after(FLUSH_SECONDS):
                await publisher.end()
            nursery.cancel_scope.cancel()


async def follow(path: Path, show: Callable[[Event], object]) -> None:
    """Call `show` with the events of the machine whose socket is at `path`, until it is gone. OSError if it is."""
    with reachable(path) as address:
        stream = await trio.open_unix_socket(address)
    rest = b""
    async with stream:
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for event in map(decode_event, lines):
                if event is not None:
                    show(event)
            if len(rest) > LINE_MAX:
                return
