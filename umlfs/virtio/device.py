"""What a virtio device type is to its transport."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from umlfs.statistics import Statistics
from umlfs.virtio.virtqueue import AtOnce, Chain


class VirtioDevice(Protocol):
    """A device type: what a back end needs to know of it, and asks of it."""

    features: int
    """Feature bits of the device type."""
    queues: int

    on_config_change: Callable[[], None]
    """The device calls it when its configuration space has changed. Whoever serves it sets it, and tells the guest."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def statistics(self) -> Statistics:
        """The device counts bytes, whoever serves it the requests."""

    def config(self) -> bytes:
        """The configuration space as it is now."""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote to the configuration space. OSError for what it may not write."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """What whoever serves it is within for as long as a driver may use it: see `Filesystem.running`."""

    def handle(self, queue: int, chain: Chain) -> Coroutine[Any, Any, int]:
        """Do one request; returns the bytes written. What the guest sees as an error is written as one;
        `RingError` stops the queue, and so does a bug. Cancelled when the queue is stopped."""

    @property
    def at_once(self) -> AtOnce | None:
        """What does some requests without waiting, given what is readable and writable: the bytes written, or -1 if the
        request is for `handle`, and nothing was done. None if there is no such thing."""

    def reset(self) -> None:
        """The driver went away, and another may come: forget what it had. No request is under way."""


def unheard() -> None:
    """The `on_config_change` of a device that nobody serves yet, or whose configuration never changes."""
