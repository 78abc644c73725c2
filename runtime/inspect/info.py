"""What is on a disk image: its layers, its partitions, their filesystems, and the systems in them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from runtime.appliance import disk
from runtime.appliance.part import Part
from runtime.appliance.parts import MOUNTED_MAX, mounted
from runtime.inspect.system import System, system_in
from umlfs.block import BlockDevice
from umlfs.blocks.label import label_of
from umlfs.blocks.probe import PARTITIONED, probe
from umlfs.cow.backing import is_remote
from umlfs.cow.file import peek_header
from umlfs.errors import UmlError
from umlfs.filesystem import Filesystem
from umlfs.sources import Source

LAYERS_MAX: Final = 64
"""COW files over each other that are followed."""


@dataclass(slots=True)
class PartInfo:
    """A partition, or the whole of an image without any."""

    number: int | None
    offset: int
    size: int
    filesystem: str | None
    label: str | None = None
    uuid: str | None = None
    capacity: int | None = None
    """Bytes that the filesystem has for files."""
    used: int | None = None
    system: System | None = None
    trouble: str | None = None
    """Why it could not be looked into."""
    volume: str | None = None
    """Of a volume of LVM, LUKS or MD: how it is named behind the disk."""


@dataclass(slots=True)
class ImageInfo:
    """An image."""

    path: str
    format: str
    size: int
    """Of the disk, in bytes."""
    allocated: int | None
    """Bytes that the image's file takes on this host."""
    table: bool
    """Whether there is a partition table."""
    layers: list[str]
    """For a COW file: it, what it is over, and so on."""
    parts: list[PartInfo] = field(default_factory=list)


async def image_info(source: Source) -> ImageInfo:
    """What is on the image that `source` names. Its filesystems are mounted, read-only, by an appliance. UmlError,
    UsageError; what goes wrong with one filesystem is in its `trouble`."""
    async with disk.opened(source) as device:
        if isinstance(device, Filesystem):
            raise UmlError(f"{source}: a tree, not an image", "'uml ls' lists what is in it")
        found = await disk.parts_and_volumes(device)
        table = await probe(device) == PARTITIONED
        kind = "nbd" if source.scheme.startswith("nbd") else source.scheme
        info = ImageInfo(str(source), kind, device.size, _allocated(source), table, layers_of(source))
        info.parts = [await _part(device, each) for each in found]
        await _look_inside(device, found, info)
        return info


async def _part(device: BlockDevice, part: Part) -> PartInfo:
    if part.problem:
        return PartInfo(part.number, part.offset, 0, None, trouble=part.problem, volume=part.name or None)
    label = await label_of(part.of(device), part.kind)
    return PartInfo(part.number, part.offset, part.size, part.kind, label.label, label.uuid, volume=part.name or None)


async def _look_inside(device: BlockDevice, found: list[Part], info: ImageInfo) -> None:
    chosen = [(part, shown) for part, shown in zip(found, info.parts, strict=True) if part.mountable]
    for _, shown in chosen[MOUNTED_MAX:]:
        shown.trouble = f"not looked into: one of more than {MOUNTED_MAX}"
    chosen = chosen[:MOUNTED_MAX]
    if not chosen:
        return
    async with mounted(device, [part for part, _ in chosen]) as filesystems:
        for filesystem, (_, shown) in zip(filesystems, chosen, strict=True):
            if isinstance(filesystem, UmlError):
                shown.trouble = filesystem.what
                continue
            state = await filesystem.statfs()
            shown.capacity = state.blocks * state.block_size
            shown.used = (state.blocks - state.blocks_free) * state.block_size
            shown.system = await system_in(filesystem, shown.filesystem)


def _allocated(source: Source) -> int | None:
    try:
        return os.stat(source.files[0]).st_blocks * 512 if source.files else None
    except OSError:
        return None


def layers_of(source: Source) -> list[str]:
    """The COW file that `source` is and all below it; the source alone if it is none."""
    if source.scheme != "cow":
        return [str(source)]
    path = source.files[0]
    found: list[str] = []
    while len(found) < LAYERS_MAX and path not in found:
        found.append(path)
        try:
            header = peek_header(path)
        except (OSError, UmlError):
            break
        if header is None:
            break
        backing = os.fsdecode(header.backing)
        path = backing if is_remote(backing) else os.path.normpath(os.path.join(os.path.dirname(path), backing))
    return found if len(found) > 1 else [str(source)]
