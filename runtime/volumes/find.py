"""The volumes on a disk, in each other too: LVM in LUKS in a partition."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Final

from runtime.volumes.luks import unlocked
from runtime.volumes.lvm import PhysicalVolume, UnusableError, logical_volumes, physical_volume
from runtime.volumes.md import raid_member
from umlfs.block import BlockDevice
from umlfs.blocks.partitions import Partition
from umlfs.blocks.probe import PARTITIONED, probe
from umlfs.blocks.slice import Slice
from umlfs.views.disks import partitions

_DEPTH_MAX: Final = 4
MEMBERS: Final = {"LVM2_member": "lvm", "crypto_LUKS": "luks", "linux_raid_member": "md"}
"""What is no filesystem but holds volumes, and how these are called."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume, and its blocks, or why there are none."""

    name: str
    """`vg/root`, `luks2` (of the second partition), `md` (of the whole)."""
    device: BlockDevice | None
    problem: str = ""


@dataclass
class _Search:
    keys: Sequence[bytes]
    found: list[Volume] = field(default_factory=list)
    physical: list[PhysicalVolume] = field(default_factory=list)


async def volumes(device: BlockDevice, keys: Sequence[bytes] = ()) -> list[Volume]:
    """All on `device`, which stays the caller's, and must stay open. OSError; UmlError without what opening takes."""
    search = _Search(keys)
    await _look(device, "", search, 0)
    try:
        for logical in logical_volumes(search.physical):
            name = f"{logical.group}/{logical.name}"
            search.found.append(Volume(name, logical.device, logical.problem))
            if logical.device is not None:
                await _open(logical.device, await probe(logical.device), f"-{logical.name}", search, 1)
    except ValueError as error:
        search.found.append(Volume("lvm", None, f"damaged: {error}"))
    return search.found


async def _look(device: BlockDevice, suffix: str, search: _Search, depth: int) -> None:
    """Take what `device` is, or what its partitions are. `suffix` is the number of the partition that it is."""
    kind = await probe(device)
    if kind == PARTITIONED and depth < _DEPTH_MAX:
        for each in await partitions(device):
            if not suffix:
                await _open_part(device, each, search)
    elif kind in MEMBERS and depth < _DEPTH_MAX:
        await _open(device, kind, suffix, search, depth)


async def _open_part(device: BlockDevice, part: Partition, search: _Search) -> None:
    inside = Slice(device, part.offset, part.length)
    await _open(inside, await probe(inside), str(part.number), search, 0)


async def _open(device: BlockDevice, kind: str | None, suffix: str, search: _Search, depth: int) -> None:
    if kind not in MEMBERS:
        return
    name = MEMBERS[kind] + suffix
    if kind == "LVM2_member":
        await _told(search, name, _add_physical(device, search))
        return
    work = unlocked(device, search.keys) if kind == "crypto_LUKS" else raid_member(device)
    opened = await _told(search, name, work)
    if opened is not None:
        await _look(opened, suffix, search, depth + 1)


async def _add_physical(device: BlockDevice, search: _Search) -> None:
    search.physical.append(await physical_volume(device))


async def _told(search: _Search, name: str, work: Awaitable[BlockDevice | None]) -> BlockDevice | None:
    """What `work` opens; it is found then, or its problem is."""
    try:
        opened = await work
    except UnusableError as error:
        search.found.append(Volume(name, None, str(error)))
        return None
    except ValueError as error:
        search.found.append(Volume(name, None, f"damaged: {error}"))
        return None
    if opened is not None:
        search.found.append(Volume(name, opened))
    return opened
