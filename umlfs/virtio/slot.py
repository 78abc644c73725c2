"""A virtio-fs device whose filesystem comes and goes while the guest runs.

virtio_uml knows no hot plug: a device is there from the boot on or never. But what a virtio-fs device serves counts
only from a mount to its unmount, and can be exchanged in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from umlfs.buffers import Buffers
from umlfs.filesystem import Filesystem
from umlfs.fuse.session import FuseSession
from umlfs.views.empty import Empty
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.under_way import UnderWay
from umlfs.virtio.virtqueue import Chain


@dataclass(slots=True)
class _Content:
    """What is in a slot."""

    session: FuseSession
    under_way: UnderWay = field(default_factory=UnderWay)
    taken_out: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event | None = None
    """Set when its filesystem runs no more; None if it never did."""


class Slot(VirtioFs):
    """A `VirtioDevice` that serves an empty filesystem until it is given another."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag, Empty())
        self.tag = tag
        self._content = _Content(self.session)
        self._nursery: trio.Nursery | None = None
        """Where what is inserted runs, while the device is served."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What is in it runs, whenever that comes and goes."""
        async with trio.open_nursery() as self._nursery:
            self._start(self._content)
            try:
                yield
            finally:
                nursery, self._nursery = self._nursery, None
                nursery.cancel_scope.cancel()

    def _start(self, content: _Content) -> None:
        if self._nursery is not None:
            content.stopped = trio.Event()
            self._nursery.start_soon(self._run, content)

    @staticmethod
    async def _run(content: _Content) -> None:
        try:
            async with content.session.filesystem.running():
                await content.taken_out.wait()
        finally:
            assert content.stopped is not None
            content.stopped.set()

    @property
    def mounted(self) -> bool:
        """Whether the guest has mounted what is in it."""
        return self.session.mounted

    def insert(self, filesystem: Filesystem, *, read_only: bool = False, name: str = "") -> None:
        """Serve `filesystem` from now on, called `name` in messages. It stays the caller's, who closes it after
        `take_out`."""
        self.name = f"virtio-fs {name or self.tag}"
        self.statistics.clear()
        self._exchange(
            FuseSession(filesystem, read_only=read_only, statistics=self.statistics, lock_waits=self.lock_waits)
        )

    async def take_out(self) -> None:
        """Serve nothing from now on; return when no request works on what was there any more.

        A guest that still has it mounted gets errors.
        """
        last = self._content
        self.name = f"virtio-fs {self.tag}"
        self._exchange(FuseSession(Empty(), statistics=self.statistics, lock_waits=self.lock_waits))
        self.lock_waits.interrupt_all()
        await last.under_way.end()
        last.session.disconnect()
        last.taken_out.set()
        if last.stopped is not None:
            await last.stopped.wait()

    def _exchange(self, session: FuseSession) -> None:
        self.session = session
        self._content = _Content(session)
        self._start(self._content)

    def at_once(self, readable: Buffers, writable: Buffers) -> int:
        """As the session that is served now does."""
        answer = self.session.quick_answer
        return -1 if answer is None else answer(readable, writable)

    def handle(self, queue: int, chain: Chain) -> Coroutine[Any, Any, int]:
        return self._counted(self._content, chain)

    async def _counted(self, content: _Content, chain: Chain) -> int:
        with content.under_way:
            return await content.session.handle(chain.readable, chain.writable)
