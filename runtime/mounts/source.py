"""What is mounted on the host for a `SRC` word: the filesystem in an image, or a disk as files, or a tree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from runtime.inspect import location
from runtime.inspect.location import Location
from runtime.mounts.options import MountOptions
from umlfs import sources
from umlfs.block import BlockDevice
from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem


def check(source: str) -> None:
    """UsageError unless the word names something that can be mounted."""
    if _inside(source) is None:
        sources.parse(source)


def _inside(source: str) -> Location | None:
    """Where the filesystem is that is meant: that of an image's partition, or of an image whose kind is not said (with
    it, the disk is meant). None for all other sources."""
    try:
        place = location.parse(source)
    except UsageError:
        return None
    if place.path not in (None, "/"):
        raise UsageError(f"{source}: a path inside an image", "mount the whole, and use the path there")
    if place.partition is not None:
        return place
    is_image = os.path.isfile(place.source) or (os.path.exists(place.source) and not os.path.isdir(place.source))
    return place if is_image or ("," in place.source and not place.source.startswith("cow:")) else None


@contextlib.asynccontextmanager
async def opened(source: str, options: MountOptions, aside: Sequence[Path]) -> AsyncIterator[Filesystem]:
    """The filesystem to mount, until it is unmounted. An image is only read unless the options say `rw`. UmlError."""
    place = _inside(source)
    if place is not None:
        if options.source:
            raise UsageError(f"-o {next(iter(options.source))}: an image has no such option", "it has ro and rw")
        from runtime.inspect.tree import open_tree
        from runtime.mounts.owner import Superuser

        if options.writable or place.partition is not None or await _mountable(place):
            async with open_tree(place, writable=options.writable, enduring=True) as tree:
                yield Superuser(tree.filesystem) if os.geteuid() else tree.filesystem
            return
    wanted = sources.OpenOptions(read_only=options.read_only, extra=options.source, aside=aside)
    filesystem = await _filesystem(source, wanted)
    try:
        yield filesystem
    finally:
        with trio.CancelScope(shield=True):
            await filesystem.close()


async def _mountable(place: Location) -> bool:
    """Whether there is one filesystem in the image, that the kernel mounts. Else it is shown as a disk."""
    from runtime.appliance import disk

    async with disk.opened(place.source) as device:
        return isinstance(device, BlockDevice) and sum(part.mountable for part in await disk.parts(device)) == 1


async def _filesystem(source: str, options: sources.OpenOptions) -> Filesystem:
    found = await sources.parse(source).open(options)
    if isinstance(found, BlockDevice):
        from umlfs.views.disks import BlockFiles

        return await BlockFiles.of(found)
    return found
