"""What a disk of a machine is, and what the guest's kernel calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from umlfs.block import BlockDevice

if TYPE_CHECKING:  # most machines have no disk, and what serves one takes a while to load
    from umlfs.ubd import Spec
    from umlfs.virtio.blk import VirtioBlk
    from umlfs.virtio.disk_slot import DiskSlot


@dataclass(frozen=True, slots=True, eq=False)
class Disk:
    """A block device that is open already, as a disk of the guest. It stays the caller's, who closes it."""

    name: str
    """What the guest finds in /dev; not longer than a serial number may be."""
    device: BlockDevice
    read_only: bool = False


@dataclass(slots=True)
class Ubd:
    """A ubd device that is open, in the slot that serves it."""

    spec: Spec
    device: BlockDevice
    slot: DiskSlot
    number: int
    """Of the slot's virtio-uml device."""

    def connect(self) -> VirtioBlk:
        """Put it into its slot; what the guest then has."""
        disk = disk_of(self.spec, self.device)
        self.slot.insert(disk)
        return disk


class RootDisk(NamedTuple):
    """The ubd device that holds the root."""

    name: str
    """`ubda`"""
    partition: str = ""
    """Its number; empty for the whole disk."""
    kind: str = ""
    """The filesystem; empty to find out."""
    options: str = ""
    """How to mount it, besides `rw` or `ro`."""


def disk_of(spec: Spec, device: BlockDevice) -> VirtioBlk:
    """What serves the guest a ubd device."""
    from umlfs.virtio.blk import VirtioBlk

    return VirtioBlk(
        device,
        serial=spec.serial or spec.name,
        read_only=spec.read_only,
        discard=not spec.no_trim,
        name=spec.name,
    )


def ubd_word(name: str) -> str:
    """`ubd0`, for the disk `ubda`."""
    return f"ubd{ord(name[3]) - ord('a')}"


def disk_name(number: int) -> str:
    """What the virtio_blk driver calls its disk `number`: vda to vdz, vdaa and so on."""
    name = ""
    while number >= 0:
        name = chr(ord("a") + number % 26) + name
        number = number // 26 - 1
    return f"vd{name}"
