"""A source of blocks, and what parts it has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import trio

from runtime.appliance.part import Part
from runtime.appliance.qemu import format_of, qemu_image
from umlfs import sources
from umlfs.block import BlockDevice
from umlfs.blocks.probe import PARTITIONED, probe
from umlfs.blocks.slice import Slice
from umlfs.errors import UmlError
from umlfs.filesystem import Filesystem
from umlfs.views.disks import partitions


def qemu_format(word: str) -> str | None:
    """qemu's name for the format of the image that `word` names; None for all other sources."""
    try:
        return format_of(word) if os.path.isfile(word) else None
    except OSError:
        return None


@contextlib.asynccontextmanager
async def opened(word: str, *, writable: bool = False) -> AsyncIterator[Filesystem | BlockDevice]:
    """The source `word`, images of qemu's formats too. UmlError or UsageError if it cannot be used."""
    image_format = qemu_format(word)
    if image_format is not None:
        if writable:
            raise UmlError(f"{word}: a {image_format} image, which can only be read", "'qemu-img convert' makes it raw")
        async with qemu_image(word, image_format) as device:
            yield device
        return
    try:
        # Tools ask once: there is nothing to keep an eye on.
        found = await sources.parse(word).open(sources.OpenOptions(read_only=not writable, snapshot=True))
    except OSError as error:
        raise UmlError(f"{word}: {os.strerror(error.errno or 0)}", "use a source that you may open") from error
    try:
        yield found
        if isinstance(found, BlockDevice) and writable:
            await found.flush()
    finally:
        with trio.CancelScope(shield=True):
            await found.close()


async def parts(device: BlockDevice) -> list[Part]:
    """The partitions of `device`; where it has none, the whole. OSError."""
    kind = await probe(device)
    if kind != PARTITIONED:
        return [Part(None, 0, device.size, kind)]
    found = []
    for each in await partitions(device):
        found.append(Part(each.number, each.offset, each.length, await probe(Slice(device, each.offset, each.length))))
    return found
