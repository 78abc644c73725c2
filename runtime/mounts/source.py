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
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source


def check(word: str) -> None:
    """UsageError unless the word names something that can be mounted."""
    _place(word)


def _place(word: str) -> Location:
    place = location.parse(word)
    if place.machine:
        raise UsageError(f"{word}: a running machine cannot be mounted", "'uml cp' and 'uml ls' look into it")
    if place.path not in (None, "/"):
        raise UsageError(f"{word}: a path inside of a source", "mount the whole, and use the path there")
    return place


def _is_meant_inside(place: Location) -> bool:
    """Whether the filesystem in an image is meant: that of a partition, or of an image whose kind is not said (with it,
    the disk is meant)."""
    source = place.source
    if place.partition is not None:
        return True
    said = not source.detected and str(source).startswith(f"{source.scheme}:")
    return not said and bool(source.files) and not any(map(os.path.isdir, source.files))


@contextlib.asynccontextmanager
async def opened(word: str, options: MountOptions, aside: Sequence[Path]) -> AsyncIterator[Filesystem]:
    """The filesystem to mount, until it is unmounted. An image is only read unless the options say `rw`. UmlError."""
    place = _place(word)
    if _is_meant_inside(place):
        if options.source:
            raise UsageError(f"-o {next(iter(options.source))}: an image has no such option", "it has ro and rw")
        from runtime.inspect.tree import open_tree
        from runtime.mounts.owner import Superuser

        if options.writable or place.partition is not None or await _mountable(place.source):
            async with open_tree(place, writable=options.writable, enduring=True) as tree:
                yield Superuser(tree.filesystem) if os.geteuid() else tree.filesystem
            return
    asked = {"rw": ""} if options.writable and "rw" in place.source.kind.options else {}
    if options.read_only and "notify" in options.source:
        raise UsageError("-o ro,notify: the kernel announces nothing in a read-only mount", "leave out one of them")
    extra = {**options.source, **asked}
    wanted = OpenOptions(read_only=options.read_only, extra=extra, aside=aside, announces=True)
    filesystem = await _filesystem(place.source, wanted)
    try:
        yield filesystem
    finally:
        with trio.CancelScope(shield=True):
            await filesystem.close()


async def _mountable(source: Source) -> bool:
    """Whether there is one filesystem in the image, that the kernel mounts. Else it is shown as a disk."""
    from runtime.appliance import disk

    async with disk.opened(source) as device:
        if not isinstance(device, BlockDevice):
            return False
        found = await disk.parts_and_volumes(device)
        if len(found) == 1 and found[0].problem:
            raise UmlError(f"{source}: {found[0].problem}", None)
        return sum(part.mountable for part in found) == 1


async def _filesystem(source: Source, options: OpenOptions) -> Filesystem:
    found = await source.open(options)
    if isinstance(found, BlockDevice):
        from umlfs.views.disks import BlockFiles

        return await BlockFiles.of(found)
    return found
