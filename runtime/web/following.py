"""What machines are and what happens to them, for all who look: asked for once, however many look."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any, Final

import trio

from runtime.machines.directory import machines_directory
from runtime.machines.listing import listing
from runtime.mconsole.events import Event
from runtime.mconsole.watch import watch

FRESH_SECONDS: Final = 1.0
"""How long an answer is good for the next who asks."""
RECENT: Final = 100
"""Events that one who comes late is told of."""
WAITING_MAX: Final = 256


class Machines:
    """The machines of this user, as `uml ps --json` tells of them."""

    def __init__(self) -> None:
        self._asking = trio.Lock()
        self._until = -1.0
        self._found: list[dict[str, Any]] = []

    async def listed(self) -> list[dict[str, Any]]:
        """All of them; the answer is at most a second old."""
        async with self._asking:
            if trio.current_time() >= self._until:
                self._found = [asdict(each) for each in await listing()]
                self._until = trio.current_time() + FRESH_SECONDS
            return self._found

    def forget(self) -> None:
        """Something was done: the next answer is a new one."""
        self._until = -1.0


class Events:
    """What happens to machines, from the start of the server on."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._followers: set[trio.MemorySendChannel[Event]] = set()

    async def run(self) -> None:
        """Hear of events until cancelled."""
        await watch(machines_directory(), (), self._publish)

    def _publish(self, event: Event) -> None:
        self._recent.append(event)
        for follower in list(self._followers):
            try:
                follower.send_nowait(event)
            except trio.WouldBlock:  # too slow: it hears no more, and asks anew
                self._followers.discard(follower)
                follower.close()

    def follow(self) -> tuple[trio.MemorySendChannel[Event], trio.MemoryReceiveChannel[Event]]:
        """A channel of events, the recent ones first; to be given back to `leave`."""
        sending, receiving = trio.open_memory_channel[Event](WAITING_MAX)
        for event in self._recent:
            sending.send_nowait(event)
        self._followers.add(sending)
        return sending, receiving

    def leave(self, channel: trio.MemorySendChannel[Event]) -> None:
        """No more events there."""
        self._followers.discard(channel)
        channel.close()
