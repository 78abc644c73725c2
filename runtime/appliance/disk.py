"""A source of blocks, and what parts it has."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from runtime.appliance.part import Part
from umlfs.block import BlockDevice
from umlfs.blocks.partitions import Partition
from umlfs.blocks.probe import PARTITIONED, probe
from umlfs.blocks.slice import Slice
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source
from umlfs.views.disks import partitions


@contextlib.asynccontextmanager
async def opened(source: Source, *, writable: bool = False) -> AsyncIterator[Filesystem | BlockDevice]:
    """What `source` names, open. UmlError or UsageError if it cannot be used."""
    # Tools ask once: there is nothing to keep an eye on.
    found = await source.open(OpenOptions(read_only=not writable, snapshot=True))
    try:
        yield found
        if isinstance(found, BlockDevice) and writable:
            await found.flush()
    finally:
        with trio.CancelScope(shield=True):
            await found.close()


async def parts(device: BlockDevice) -> list[Part]:
    """The partitions of `device`, those too of which the end is cut off; where it has none, the whole. OSError."""
    kind = await probe(device)
    if kind != PARTITIONED:
        return [Part(None, 0, device.size, kind)]
    found = []
    beyond: list[Partition] = []
    for each in await partitions(device, beyond):
        found.append(Part(each.number, each.offset, each.length, await probe(Slice(device, each.offset, each.length))))
    for each in beyond:
        problem = f"it ends at byte {each.offset + each.length} of a disk of {device.size}, which was cut short"
        found.append(Part(each.number, each.offset, 0, None, problem=problem))
    return found


async def parts_and_volumes(device: BlockDevice) -> list[Part]:
    """The partitions, and the volumes of LVM, LUKS and MD on them; both stay the device's. OSError, UmlError."""
    from runtime.volumes import keys  # a directory has none, and they take a while to load
    from runtime.volumes.find import MEMBERS, volumes

    found = await parts(device)
    if not any(part.kind in MEMBERS for part in found):
        return found
    for each in await volumes(device, keys.known()):
        if each.device is None:
            found.append(Part(None, 0, 0, None, each.name, None, each.problem))
        else:
            found.append(Part(None, 0, each.device.size, await probe(each.device), each.name, each.device))
    return [part for part in found if part.number is not None or part.kind not in MEMBERS or part.name]
