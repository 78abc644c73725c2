"""A virtio-blk device whose disk comes and goes while the guest runs.

virtio_uml knows no hot plug: a device is there from the boot on or never. But its capacity may change, and a disk
without a sector is as good as none. What the guest learns once for all, when its driver finds the device, is that of a
disk which is written to and takes discard; where that is not so, the request is refused, and the guest should be told
otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from umlfs.block import BlockDevice
from umlfs.statistics import Statistics
from umlfs.virtio.blk import VirtioBlk, configuration, features
from umlfs.virtio.device import unheard
from umlfs.virtio.under_way import UnderWay
from umlfs.virtio.virtqueue import Chain


class _Nothing(BlockDevice):
    """A device without a byte."""

    size = 0

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """There is nothing to fill."""

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """There is nothing to write."""

    async def flush(self) -> None:
        """Nothing was written."""

    async def close(self) -> None:
        """Nothing was opened."""


class DiskSlot:
    """A `VirtioDevice` that has no capacity until it is given a disk."""

    queues = 1

    def __init__(self, name: str, *, read_only: bool = False, unmap: bool = True) -> None:
        """`name` is what messages call it while it is empty. A guest is told at its boot, once for all, that it is
        `read_only`, or that it takes discard (`unmap`)."""
        self.on_config_change: Callable[[], None] = unheard
        self.features = features(read_only=read_only, unmap=unmap)
        self.fits_all = not read_only and unmap
        """Any disk may be put into it."""
        self._unmap = unmap
        self._empty = VirtioBlk(_Nothing(), name=name)
        self._offered = False
        """The guest sees the capacity."""
        self._put(self._empty)

    def _put(self, disk: VirtioBlk) -> None:
        self.disk = disk
        """What answers the requests that come."""
        self._under_way = UnderWay()

    @property
    def name(self) -> str:
        return self.disk.name

    @property
    def statistics(self) -> Statistics:
        return self.disk.statistics

    def insert(self, disk: VirtioBlk) -> None:
        """Serve `disk` from now on, and offer it. Its device stays the caller's, who closes it after `take_out`."""
        self._put(disk)
        self.offer(True)

    def offer(self, offered: bool) -> None:
        """Tell the guest that there is a disk, or that there is none. Requests are answered either way: it takes a
        while to hear of it."""
        self._offered = offered
        self.on_config_change()

    async def take_out(self) -> None:
        """Serve nothing from now on; return when no request works on what was there any more. The guest's requests then
        fail."""
        last = self._under_way
        self._put(self._empty)
        self.offer(False)
        await last.end()

    at_once = None

    def config(self) -> bytes:
        return configuration(self.disk.device.size if self._offered else 0, unmap=self._unmap)

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing can be set."""

    def reset(self) -> None:
        """The disk stays for the driver that comes."""

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    def handle(self, queue: int, chain: Chain) -> Coroutine[Any, Any, int]:
        return self._counted(self.disk, self._under_way, queue, chain)

    @staticmethod
    async def _counted(disk: VirtioBlk, under_way: UnderWay, queue: int, chain: Chain) -> int:
        with under_way:
            return await disk.handle(queue, chain)
