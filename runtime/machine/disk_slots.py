"""Disks for a guest that runs already: put into the spare devices that it was booted with, and named by its agent."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

import trio

from runtime import guest
from runtime.machine.directory_slots import Script
from runtime.machine.disk import Ubd
from runtime.machine.in_transit import InTransit
from runtime.machine.script import ScriptError
from umlfs.errors import UmlError
from umlfs.ubd import Spec
from umlfs.virtio.blk import SECTOR
from umlfs.virtio.disk_slot import DiskSlot

IN_USE: Final = 16
"""The exit status of the guest's script if somebody has the disk open."""


class DiskSlots:
    """The ubd devices of one machine, those of the boot as well, and the slots for more."""

    def __init__(self, free: list[tuple[DiskSlot, int]], ubds: list[Ubd], script: Script) -> None:
        """The slots that have no disk, with the numbers of their virtio-uml devices, and the open disks. The lists are
        kept up to date; what is open at the end is the caller's to close."""
        self._free = free
        self._ubds = ubds
        self._script = script
        self._in_transit = InTransit[int]()
        """Units."""
        self.writes = False
        """A disk came that the guest may have written to."""

    @property
    def free(self) -> Sequence[DiskSlot]:
        """Those without a disk."""
        return [slot for slot, _ in self._free]

    @property
    def specs(self) -> Sequence[Spec]:
        """The disks that are there, as they were asked for."""
        return [it.spec for it in self._ubds]

    def at(self, unit: int) -> Spec | None:
        """The disk of that unit."""
        return next((spec for spec in self.specs if spec.unit == unit), None)

    async def plug(self, spec: Spec) -> None:
        """Open a disk, and have the guest find it under its name.

        UmlError, UsageError; OSError (EBUSY) if there is one of that unit. Then nothing is left of it, unless the guest
        did not answer in time.
        """
        if self.at(spec.unit) is not None or spec.unit in self._in_transit:
            raise OSError(errno.EBUSY, "Device is already configured")
        index = next((index for index, (slot, _) in enumerate(self._free) if slot.fits_all), None)
        if index is None:
            raise UmlError("no slot for a disk is left", "remove another, or boot with more: --slots")
        with self._in_transit.changing(spec.unit):
            it = await self._open(spec, *self._free.pop(index))
            try:
                await self._show(it)
            except BaseException:
                await self._empty(it)
                raise

    async def _open(self, spec: Spec, slot: DiskSlot, number: int) -> Ubd:
        from umlfs.ubd.device import open_ubd  # takes a while to load, and most machines are never given a disk

        try:
            it = Ubd(spec, await open_ubd(spec), slot, number)
        except BaseException:
            self._free.append((slot, number))
            raise
        self._ubds.append(it)
        return it

    async def _show(self, it: Ubd) -> None:
        disk = it.connect()
        self.writes |= not disk.read_only
        mode = "ro" if disk.read_only else "rw"
        await self._run(it, "plug", disk.device.size // SECTOR, mode, int(disk.discards))

    async def unplug(self, unit: int) -> None:
        """Close a disk once the guest does without. OSError: EBUSY while somebody there has it open, ENODEV if there is
        none; UmlError."""
        it = next((it for it in self._ubds if it.spec.unit == unit), None)
        if it is None:
            raise OSError(errno.ENODEV, "Device doesn't exist")
        if unit in self._in_transit:
            raise OSError(errno.EBUSY, "Device is busy; try again")
        with self._in_transit.changing(unit):
            try:
                await self._take_back(it)
            except ScriptError as error:
                if error.returncode == IN_USE:
                    raise OSError(errno.EBUSY, f"Device is currently open: {error.what}") from None
                raise
            await self._empty(it)

    async def _take_back(self, it: Ubd) -> None:
        """Have the guest do without. Who opens the disk between the first look and its end keeps it."""
        await self._run(it, "check")
        it.slot.offer(False)
        try:
            await self._run(it, "unplug")
        except BaseException:
            it.slot.offer(True)
            raise

    async def _run(self, it: Ubd, action: str, *arguments: object) -> None:
        words = [str(it.number), it.spec.name, *map(str, arguments)]
        await self._script(f'{guest.script("disk.sh")}{action} "$@"\n', words)

    async def _empty(self, it: Ubd) -> None:
        await it.slot.take_out()
        self._ubds.remove(it)
        self._free.append((it.slot, it.number))
        with trio.CancelScope(shield=True):
            await it.device.close()
