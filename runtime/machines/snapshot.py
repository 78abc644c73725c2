"""Copies of the COW files that a machine writes to, all of one moment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

import trio

from umlfs.cow.device import CowDevice
from umlfs.cow.snapshot import snapshot
from umlfs.errors import UmlError, UsageError
from umlfs.virtio.blk import VirtioBlk
from umlfs.virtio.device import VirtioDevice

Pause = Callable[[], AbstractAsyncContextManager[None]]
"""Keeps the guest from running for as long as the context lasts."""


async def take(devices: Iterable[VirtioDevice], directory: str, pause: Pause) -> list[str]:
    """Copy the COW files below `devices` into `directory`, or to where each is if that is empty; the paths of the
    copies, which are durable. The guest is paused until they are made. UmlError, UsageError, OSError."""
    cows = [device for device in map(_cow_of, devices) if device is not None]
    if not cows:
        raise UmlError("no COW file that the machine writes to", "give it disks as ubd0=COW,BACKING")
    targets = _targets(cows, directory)
    with contextlib.ExitStack() as copies:
        async with pause():
            for device, target in zip(cows, targets, strict=True):
                await device.flush()
                await trio.to_thread.run_sync(copies.enter_context, snapshot(device.path, target))
        # What takes long, making them durable, goes on beside the guest.
        await trio.to_thread.run_sync(copies.close)
    return targets


def _cow_of(device: VirtioDevice) -> CowDevice | None:
    """The COW device that the guest writes to by this one."""
    below = device.device.device if isinstance(device, VirtioBlk) and not device.read_only else None
    return below if isinstance(below, CowDevice) and below.path else None


def _targets(cows: Iterable[CowDevice], directory: str) -> list[str]:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    found = []
    for device in cows:
        place, name = os.path.split(os.path.abspath(device.path))
        found.append(os.path.join(directory or place, f"{name}.{stamp}"))
    if len(set(found)) < len(found):
        raise UsageError("two COW files have one name", "leave out the directory: each copy goes to its original")
    return found
