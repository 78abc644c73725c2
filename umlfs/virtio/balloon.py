"""A virtio-balloon device: a guest tells which of its memory it does not use, and the host has that back.

Defined in the Virtio specification 1.2, section 5.5 (traditional memory balloon device), of which this is free page
reporting alone: the guest reports blocks of free pages by itself, some seconds after they became free, and uses them
again without asking. The balloon proper is never inflated.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Callable
from typing import Final

from umlfs.host.syscalls import remove_pages
from umlfs.statistics import Statistics
from umlfs.virtio.device import unheard
from umlfs.virtio.virtqueue import Chain

log = logging.getLogger(__name__)

DEVICE_ID: Final = 5
_F_REPORTING: Final = 1 << 5
_CONFIG: Final = struct.Struct("<IIII")
_REPORTS: Final = 2
"""The queue of reports. Those before it inflate and deflate."""


class VirtioBalloon:
    """A `VirtioDevice` that gives the host what its guest reports as free."""

    queues = 3
    features = _F_REPORTING
    name = "virtio-balloon"

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.on_config_change: Callable[[], None] = unheard
        self.given_back = 0
        """Bytes, each time that they were reported."""
        self._works = True

    at_once = None

    def config(self) -> bytes:
        return _CONFIG.pack(0, 0, 0, 0)

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver tells how many pages are in the balloon: none."""

    def reset(self) -> None:
        pass

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def handle(self, queue: int, chain: Chain) -> int:
        """Give back the pages of a report. What is in them is lost, as the guest knows."""
        if queue == _REPORTS and self._works:
            try:
                self.given_back += sum(map(remove_pages, chain.writable))
            except OSError as error:  # such as a filesystem without holes
                self._works = False
                log.info("%s: the host cannot take memory back: %s", self.name, error.strerror)
        return 0
