"""What a virtio device type is to its transport."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from umlfs.serve.statistics import Statistics
from umlfs.serve.virtqueue import Chain


class VirtioDevice(Protocol):
    """A device type: what a back end needs to know of it, and asks of it."""

    name: str
    """For messages."""
    features: int
    """Feature bits of the device type."""
    queues: int
    statistics: Statistics
    """The device counts bytes, whoever serves it the requests."""

    def config(self) -> bytes:
        """The configuration space as it is now."""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote to the configuration space. OSError for what it may not write."""

    def handle(self, queue: int, chain: Chain) -> Coroutine[Any, Any, int]:
        """Do one request; returns the bytes written. What the guest sees as an error is written as one;
        `RingError` stops the queue, and so does a bug. Cancelled when the queue is stopped."""

    def reset(self) -> None:
        """The driver went away, and another may come: forget what it had. No request is under way."""
