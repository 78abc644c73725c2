"""Disks as virtio-blk devices of a machine: opened, looked at, and told to its guest."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from runtime import guest
from runtime.machine.disk import Disk, RootDisk, Ubd, disk_name, disk_of, ubd_word
from runtime.machine.equipment import Equipment, shielded_close
from umlfs.block import BlockDevice
from umlfs.blocks import probe
from umlfs.errors import UmlError, UsageError
from umlfs.sources import Source
from umlfs.ubd import Spec
from umlfs.virtio import blk as virtio_blk
from umlfs.virtio.device import VirtioDevice
from umlfs.virtio.disk_slot import DiskSlot

_HOLDERS: Final = {
    "LVM2_member": "a physical volume of LVM",
    "crypto_LUKS": "encrypted (LUKS)",
    "linux_raid_member": "a member of a RAID",
}
"""What has volumes on it."""
_UNMOUNTABLE: Final = ("swap", "zfs_member", "BitLocker")
Found = dict[str, tuple[str, str | None]]
"""What the guest's kernel calls each ubd device, and what there is on it, by the name of the device."""


def add_disk_slots(equipment: Equipment, count: int) -> None:
    """More virtio-blk devices, for disks that come later."""
    for number in range(count):
        slot = DiskSlot(f"slot{number}")
        equipment.disk_slots.append((slot, len(equipment.devices)))
        equipment.add(slot, virtio_blk.DEVICE_ID)


def add_disk(
    equipment: Equipment, name: str, device: BlockDevice, *, serial: str, read_only: bool, discard: bool = True
) -> str:
    """One more virtio-blk device, called `name` in messages; returns what the guest's kernel calls it."""
    disk = virtio_blk.VirtioBlk(device, serial=serial, read_only=read_only, discard=discard, name=name)
    _add_disk(equipment, disk)
    equipment.writes_disks |= not disk.read_only
    return disk_name(equipment.disks - 1)


def _add_disk(equipment: Equipment, disk: VirtioDevice) -> None:
    equipment.add(disk, virtio_blk.DEVICE_ID)
    equipment.disks += 1


def root_on(equipment: Equipment, disk: RootDisk, found: Found, *, read_only: bool) -> None:
    """Have the root on a ubd device that was opened. UsageError if it was not, or holds nothing to be mounted."""
    if disk.name not in found:
        raise UsageError(f"root=/dev/{disk.name}: no such disk", f"give one, with {ubd_word(disk.name)}=FILE")
    device, kind = found[disk.name]
    if kind == probe.PARTITIONED and not disk.partition:
        raise UsageError(f"root=/dev/{disk.name}: a disk with partitions", f"name one: root=/dev/{disk.name}1")
    known = None if disk.partition else kind
    options = ",".join(filter(None, ["ro" if read_only else "rw", disk.options]))
    equipment.root = guest.Mount(f"/dev/{device}{disk.partition}", "/", disk.kind or known or "auto", options)


async def add_disks(equipment: Equipment, disks: Sequence[Disk]) -> None:
    """Attach devices that are open already. OSError, UsageError."""
    for each in disks:
        _note_raid(equipment, await probe.probe(each.device))
        disk = add_disk(equipment, each.name, each.device, serial=each.name, read_only=each.read_only)
        equipment.links.append(guest.Link(each.name, disk, len(equipment.devices) - 1))


async def open_ubds(
    equipment: Equipment, stack: contextlib.AsyncExitStack, specs: Sequence[Spec], *, native: bool
) -> Found:
    """Open ubd devices, or with `native` leave them to the kernel's own driver. UmlError, UsageError."""
    # COW files and what belongs to them take a while to load, and most boots have none.
    from umlfs.ubd.device import look_at_ubd, open_ubd
    from umlfs.ubd.native import native_argument, native_files, native_word

    units = [spec.unit for spec in specs]
    for spec in specs:
        if units.count(spec.unit) > 1:
            raise UsageError(f"{spec}: Device is already configured", "give each unit once")
    found: Found = {}
    stack.push_async_callback(_close_ubds, equipment)
    for spec in specs:
        if native:
            equipment.arguments.append(native_word(spec) if equipment.look_only else await native_argument(spec))
            if not equipment.look_only:
                equipment.grants.add_files(native_files(spec))
            if spec.shared and not equipment.look_only:
                # The driver locks nothing then. What we hold keeps out those who do not share it.
                stack.push_async_callback(shielded_close, await open_ubd(spec))
            equipment.raid = True  # who knows what it holds
            found[spec.name] = spec.name, None
            equipment.writes_disks |= not spec.read_only
            continue
        async with contextlib.AsyncExitStack() as opening:
            device = await (look_at_ubd if equipment.look_only else open_ubd)(spec)
            opening.push_async_callback(shielded_close, device)
            found[spec.name] = await _add_ubd(equipment, spec, device)
            opening.pop_all()
    return found


async def _add_ubd(equipment: Equipment, spec: Spec, device: BlockDevice) -> tuple[str, str | None]:
    kind = await probe.probe(device)
    _note_raid(equipment, kind)
    disk = disk_of(spec, device)
    slot = DiskSlot(spec.name, read_only=disk.read_only, unmap=disk.discards)
    slot.insert(disk)
    it = Ubd(spec, device, slot, len(equipment.devices))
    _add_disk(equipment, slot)
    equipment.writes_disks |= not disk.read_only
    name = disk_name(equipment.disks - 1)
    equipment.links.append(guest.Link(spec.name, name, it.number))
    equipment.ubds.append(it)
    return name, kind


async def _close_ubds(equipment: Equipment) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for it in equipment.ubds:
            stack.push_async_callback(shielded_close, it.device)


async def mount_of(
    equipment: Equipment,
    stack: contextlib.AsyncExitStack,
    device: BlockDevice,
    place: str,
    source: Source,
    *,
    read_only: bool,
) -> guest.Mount:
    """The mount of the filesystem on `device`; with `read_only` the device stays as it is.

    Even then the guest may write, for as long as it lives: a filesystem that was not unmounted has to replay its
    journal before it makes sense.
    """
    from umlfs.cow.scratch import Scratch  # takes a while to load, too

    kind = await _filesystem_on(equipment, device, source)
    if read_only:
        device = Scratch(device)
        stack.push_async_callback(device.close)
    keeps = equipment.writes_disks
    disk = add_disk(equipment, place, device, serial="", read_only=False)
    equipment.writes_disks = keeps or not read_only
    return guest.Mount(f"/dev/{disk}", place, kind, "ro" if read_only else "rw")


async def _filesystem_on(equipment: Equipment, device: BlockDevice, source: Source) -> str:
    """What the guest is to mount `device` as. UmlError if that is nothing."""
    kind = await probe.probe(device)
    if kind == probe.PARTITIONED:
        raise UmlError(f"{source}: a disk with partitions, not a filesystem", "attach it with --ubd")
    if kind in _HOLDERS:
        way_out = f"name a volume in it, as 'uml ls {source.argument}' calls it: {source.argument}:VOLUME"
        raise UmlError(f"{source}: {_HOLDERS[kind]}, not a filesystem", way_out)
    if kind is None or kind in _UNMOUNTABLE:
        raise UmlError(f"{source}: no filesystem in it that the guest could mount", "attach it with --ubd")
    _note_raid(equipment, kind)
    return kind


def _note_raid(equipment: Equipment, kind: str | None) -> None:
    """A disk that holds nothing known yet, or partitions, may be or become btrfs or part of a RAID."""
    equipment.raid |= kind in (None, probe.PARTITIONED, "btrfs")
