"""A guest's announcer, from the host: which changes it is to repeat, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from runtime.machine.control import ControlFilesystem
from umlfs.buffers import scatter
from umlfs.filesystem import Change, Filesystem
from umlfs.fuse.announcements import Announcements, new_gid
from umlfs.wire.announcer import message

CHANGES: Final = b"changes"
DONE: Final = b"announced"
"""Files of the control filesystem."""


class Announcing:
    """The announcer of one guest, and the filesystems whose changes it announces."""

    def __init__(self) -> None:
        self.gid = new_gid()
        self._served: list[Announcements] = []
        self._turn = trio.Lock()
        self._sender, self._receiver = trio.open_memory_channel[bytes](1)
        self._sent: trio.Event | None = None
        """Set when the announcer has tried what it was sent."""

    def offer(self, control: ControlFilesystem) -> None:
        """Have the announcer find what it needs in the guest's control filesystem."""
        control.offer(CHANGES, pull=self._next, end=self._close)
        control.offer(DONE, push=self._done, end=self._close)

    def add(self, filesystem: Filesystem) -> Announcements:
        """Announce the changes of `filesystem`, whose mount is the announcer's next; what answers it there."""
        announcements = Announcements(filesystem, self.gid)
        self._served.append(announcements)
        return announcements

    async def run(self) -> None:
        """Announce what happens."""
        async with trio.open_nursery() as nursery:
            for place, each in enumerate(self._served):
                nursery.start_soon(each.announcer.run, partial(self._perform, place))

    async def _perform(self, place: int, change: Change, parent: bytes, new_parent: bytes) -> None:
        async with self._turn:
            self._sent = trio.Event()
            try:
                await self._sender.send(message(place, change, parent, new_parent))
            except trio.ClosedResourceError:
                await trio.sleep_forever()  # the guest is ending
            await self._sent.wait()

    # Files of the control filesystem ------------------------------------------------------------

    async def _next(self, buffers: Sequence[memoryview]) -> int:
        """What is read of `CHANGES`: one change, or the end."""
        try:
            return scatter(await self._receiver.receive(), buffers)
        except trio.EndOfChannel:
            return 0

    async def _done(self, buffers: Sequence[memoryview]) -> int:
        """What is written to `DONE`."""
        if self._sent is not None:
            self._sent.set()
        return sum(map(len, buffers))

    def _close(self) -> None:
        """The guest is about to end: the announcer is to wait for nothing more."""
        self._sender.close()
