"""The filesystems of a disk's parts, mounted by one appliance."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import trio

from umlfs.errors import UmlError
from umlfs.filesystem import Filesystem

if TYPE_CHECKING:
    from runtime.appliance.part import Part
    from umlfs.block import BlockDevice

MOUNTED_MAX: Final = 16
"""Filesystems of one image that are mounted together."""


@contextlib.asynccontextmanager
async def mounted(
    device: BlockDevice, parts: list[Part], *, writable: bool = False
) -> AsyncIterator[list[Filesystem | UmlError]]:
    """The filesystems of these parts, by one appliance; an error in the place of one that does not mount."""
    from runtime.appliance.guest import appliance
    from runtime.appliance.kinds import KINDS
    from umlfs.cow.scratch import Scratch

    kinds = [part.kind or "" for part in parts]
    async with contextlib.AsyncExitStack() as stack:
        devices: list[BlockDevice] = []
        for part in parts:
            if writable and not KINDS[part.kind or ""].writable:
                raise UmlError(f"the kernel only reads {part.kind}", "copy what is in it to another filesystem")
            each = part.of(device)
            if writable and each.read_only:
                raise UmlError("only read: its disk is, or it is one of several copies", "copy it, and change that")
            if not writable:
                # Not the device itself, which a Scratch would close.
                own = part.of(device)
                each = Scratch(own if own is not device else _whole(device))
                stack.push_async_callback(_close, each)
            devices.append(each)
        guest = await stack.enter_async_context(appliance(devices, kinds, writable=writable))
        found: list[Filesystem | UmlError] = []
        for number, kind in enumerate(kinds):
            try:
                found.append(await guest.mount(number, kind, writable=writable))
            except UmlError as error:
                found.append(error)
        yield found


def _whole(device: BlockDevice) -> BlockDevice:
    from umlfs.blocks.slice import Slice

    return Slice(device, 0, device.size)


async def _close(device: BlockDevice) -> None:
    with trio.CancelScope(shield=True):
        await device.close()
