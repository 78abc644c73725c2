"""What a machine is equipped with: every source opened, as a device, and what the guest is to do with it."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import trio

from runtime import guest
from runtime.guest import kernel_modules
from runtime.guest.kernel_modules import KernelModules
from runtime.guest.network import Network as GuestNetwork
from runtime.jail.grants import Grants
from runtime.kernels.kernel import Kernel
from umlfs.block import BlockDevice
from umlfs.blocks import probe
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source, as_source
from umlfs.ubd import Spec
from umlfs.views.one_file import OneFile
from umlfs.virtio import blk as virtio_blk
from umlfs.virtio import fs as virtio_fs
from umlfs.virtio.blk import VirtioBlk
from umlfs.virtio.disk_slot import DiskSlot
from umlfs.virtio.slot import Slot
from umlfs.virtio.vhost_user import VirtioDevice

OVERLAY_MODULE: Final = "overlay"
BASE_MODULES: Final = ("fuse", "virtiofs", OVERLAY_MODULE)
BLOCK_MODULE: Final = "virtio_blk"


@dataclass(frozen=True, slots=True, init=False)
class HostMount:
    """A source of the host at a place in the guest."""

    place: str
    """An absolute path in the guest."""
    source: Source
    read_only: bool
    options: tuple[tuple[str, str], ...]
    """Names and values of the source's own options, such as `cache` of a hostfs."""

    def __init__(
        self, place: str, source: Source | str, read_only: bool = False, options: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """`source` may be a `SRC` word, see `umlfs.sources`. UsageError if it names none."""
        given = {"place": place, "source": as_source(source), "read_only": read_only, "options": options}
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def word(self) -> str:
        """The source and its options, as they are given."""
        given = [(name, value) for name, values in reversed(self.options) for value in values.split("\n")]
        options = "".join(f":{name}={value}" if value else f":{name}" for name, value in given)
        return f"{self.source}{options}{':ro' * self.read_only}"

    def __str__(self) -> str:
        return f"{self.place}={self.word}"


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
    busy: bool = False
    """It is coming or going."""

    def connect(self) -> VirtioBlk:
        """Put it into its slot; what the guest then has."""
        disk = disk_of(self.spec, self.device)
        self.slot.insert(disk)
        return disk


@dataclass(frozen=True, slots=True)
class RootDisk:
    """The ubd device that holds the root."""

    name: str
    """`ubda`"""
    partition: str = ""
    """Its number; empty for the whole disk."""
    kind: str = ""
    """The filesystem; empty to find out."""
    options: str = ""
    """How to mount it, besides `rw` or `ro`."""


class Device(NamedTuple):
    """A device of the guest and where its back end listens."""

    device: VirtioDevice
    kind: int
    """The virtio device ID."""
    socket: Path

    @property
    def argument(self) -> str:
        """The word for the kernel's command line."""
        return f"virtio_uml.device={self.socket}:{self.kind}"


@dataclass(slots=True)
class Equipment:
    """All devices, in the order in which the kernel is told of them."""

    directory: Path
    """Where the sockets go."""
    devices: list[Device] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    """Further words for the kernel: devices that its own drivers take."""
    links: list[guest.Link] = field(default_factory=list)
    """Further names of disks in the guest."""
    mounts: list[guest.Mount] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    ubds: list[Ubd] = field(default_factory=list)
    """Those that are open, but for the kernel's own driver's."""
    disk_slots: list[tuple[DiskSlot, int]] = field(default_factory=list)
    """Those without a disk, with the numbers of their virtio-uml devices."""
    root: guest.Mount = field(default_factory=lambda: guest.Mount("root", "/"))
    owner: tuple[int, int] | None = None
    """To whom in the guest what belongs to the caller here shall belong (`OpenOptions.owner`)."""
    look_only: bool = False
    """Nothing is to be started: every source is opened read-only, and no file is made."""
    network: GuestNetwork = field(default_factory=GuestNetwork)
    """The guest's cards."""
    network_modules: tuple[str, ...] = ()
    kernel_modules: KernelModules | None = None
    """Those that the guest finds, on a device of their own."""
    raid: bool = False
    """Some disk may hold btrfs or be part of a RAID: the kernel must not leave out what these need, most of a
    second of its start."""
    grants: Grants = field(default_factory=Grants)
    """What the kernel process is given of the host besides."""
    writes_disks: bool = False
    """The guest may write to a disk: it must let go of its filesystems before it ends."""
    _disks: int = 0
    _found: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """What the guest's kernel calls each ubd device, and what there is on it."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The kernel modules that the guest needs, outermost last."""
        return (*BASE_MODULES, *([BLOCK_MODULE] if self._disks else []), *self.network_modules)

    @property
    def later(self) -> tuple[str, ...]:
        """Those that it may come to need."""
        return (BLOCK_MODULE,) if self.disk_slots else ()

    def add_filesystem(
        self, tag: str, filesystem: Filesystem, *, read_only: bool = False, lower_layer: bool = False
    ) -> None:
        """One more virtio-fs device; the guest has an overlay over a `lower_layer`."""
        device = virtio_fs.VirtioFs(tag, filesystem, read_only=read_only, lower_layer=lower_layer)
        self._add(device, virtio_fs.DEVICE_ID)

    def add_slots(self, count: int) -> None:
        """More virtio-fs devices, for filesystems that come later."""
        for number in range(count):
            slot = Slot(f"slot{number}")
            self.slots.append(slot)
            self._add(slot, virtio_fs.DEVICE_ID)

    def add_disk_slots(self, count: int) -> None:
        """More virtio-blk devices, for disks that come later."""
        for number in range(count):
            slot = DiskSlot(f"slot{number}")
            self.disk_slots.append((slot, len(self.devices)))
            self._add(slot, virtio_blk.DEVICE_ID)

    def add_disk(self, name: str, device: BlockDevice, *, serial: str, read_only: bool, discard: bool = True) -> str:
        """One more virtio-blk device, called `name` in messages; returns what the guest's kernel calls it."""
        disk = virtio_blk.VirtioBlk(device, serial=serial, read_only=read_only, discard=discard, name=name)
        self._add_disk(disk)
        self.writes_disks |= not disk.read_only
        return disk_name(self._disks - 1)

    def _add_disk(self, disk: VirtioDevice) -> None:
        self._add(disk, virtio_blk.DEVICE_ID)
        self._disks += 1

    def _add(self, device: VirtioDevice, kind: int) -> None:
        self.devices.append(Device(device, kind, self.directory / str(len(self.devices))))

    # From sources -----------------------------------------------------------------------------

    async def open_modules(self, stack: contextlib.AsyncExitStack, kernel: Kernel) -> None:
        """Let the guest find the kernel's modules, if it has any that are files. UmlError."""
        if kernel.modules is None:
            return
        opened = await self._open(stack, as_source(f"hostfs:{kernel.modules}"), OpenOptions(read_only=True))
        assert isinstance(opened, Filesystem)
        self.add_filesystem(kernel_modules.TAG, opened, read_only=True)
        found = kernel_modules.nodes(kernel.modules, BASE_MODULES)
        self.kernel_modules = KernelModules(kernel.version, list(found))

    async def open_root(
        self, stack: contextlib.AsyncExitStack, source: Source, *, writable: bool, flags: str = ""
    ) -> None:
        """Open the source of the root, to be mounted with `flags`. UmlError, UsageError."""
        opened = await self._open(stack, source, OpenOptions(read_only=not writable, snapshot=not writable))
        if isinstance(opened, Filesystem):
            self.add_filesystem("root", opened, read_only=not writable, lower_layer=not writable)
            self.root = guest.Mount("root", "/", options=flags or ("rw" if writable else "ro"))
            return
        self.root = await self._mount_of(stack, opened, "/", source, read_only=not writable)
        if flags:
            self.root = self.root._replace(options=flags)

    def root_on(self, disk: RootDisk, *, read_only: bool) -> None:
        """Have the root on a ubd device that was opened. UsageError if it was not, or holds nothing to be mounted."""
        if disk.name not in self._found:
            raise UsageError(f"root=/dev/{disk.name}: no such disk", f"give one, with {_word(disk.name)}=FILE")
        device, kind = self._found[disk.name]
        if kind == probe.PARTITIONED and not disk.partition:
            raise UsageError(f"root=/dev/{disk.name}: a disk with partitions", f"name one: root=/dev/{disk.name}1")
        found = None if disk.partition else kind
        options = ",".join(filter(None, ["ro" if read_only else "rw", disk.options]))
        self.root = guest.Mount(f"/dev/{device}{disk.partition}", "/", disk.kind or found or "auto", options)

    async def open_mounts(self, stack: contextlib.AsyncExitStack, mounts: Sequence[HostMount]) -> None:
        """Open the sources of further mounts. UmlError, UsageError."""
        for number, mount in enumerate(mounts):
            wanted = OpenOptions(read_only=mount.read_only, extra=dict(mount.options))
            opened = await self._open(stack, plain_file(mount.source), wanted)
            options = "ro" if mount.read_only else "rw"
            place = posixpath.normpath(mount.place)
            if isinstance(opened, Filesystem):
                tag = f"mount{number}"
                self.add_filesystem(tag, opened, read_only=mount.read_only)
                name = os.fsdecode(opened.name) if isinstance(opened, OneFile) else ""
                self.mounts.append(guest.Mount(tag, place, options=options, file=name))
            else:
                mounted = await self._mount_of(stack, opened, place, mount.source, read_only=mount.read_only)
                self.mounts.append(mounted)

    async def add_disks(self, disks: Sequence[Disk]) -> None:
        """Attach devices that are open already. OSError, UsageError."""
        for each in disks:
            self._note_raid(await probe.probe(each.device))
            disk = self.add_disk(each.name, each.device, serial=each.name, read_only=each.read_only)
            self.links.append(guest.Link(each.name, disk, len(self.devices) - 1))

    async def open_ubds(self, stack: contextlib.AsyncExitStack, specs: Sequence[Spec], *, native: bool) -> None:
        """Open ubd devices, or with `native` leave them to the kernel's own driver. UmlError, UsageError."""
        if not specs:
            return
        # COW files and what belongs to them take a while to load, and most boots have none.
        from umlfs.ubd.device import look_at_ubd, open_ubd
        from umlfs.ubd.native import native_argument, native_files, native_word

        units = [spec.unit for spec in specs]
        for spec in specs:
            if units.count(spec.unit) > 1:
                raise UsageError(f"{spec}: Device is already configured", "give each unit once")
        stack.push_async_callback(self.close_ubds)
        for spec in specs:
            if native:
                self.arguments.append(native_word(spec) if self.look_only else await native_argument(spec))
                if not self.look_only:
                    self.grants.add_files(native_files(spec))
                if spec.shared and not self.look_only:
                    # The driver locks nothing then. What we hold keeps out those who do not share it.
                    stack.push_async_callback(_close, await open_ubd(spec))
                self.raid = True  # who knows what it holds
                self._found[spec.name] = spec.name, None
                self.writes_disks |= not spec.read_only
                continue
            async with contextlib.AsyncExitStack() as opening:
                device = await (look_at_ubd if self.look_only else open_ubd)(spec)
                opening.push_async_callback(_close, device)
                await self._add_ubd(spec, device)
                opening.pop_all()

    async def _add_ubd(self, spec: Spec, device: BlockDevice) -> None:
        kind = await probe.probe(device)
        self._note_raid(kind)
        disk = disk_of(spec, device)
        slot = DiskSlot(spec.name, read_only=disk.read_only, unmap=disk.discards)
        slot.insert(disk)
        it = Ubd(spec, device, slot, len(self.devices))
        self._add_disk(slot)
        self.writes_disks |= not disk.read_only
        name = disk_name(self._disks - 1)
        self.links.append(guest.Link(spec.name, name, it.number))
        self._found[spec.name] = name, kind
        self.ubds.append(it)

    async def close_ubds(self) -> None:
        """Close those that are open."""
        async with contextlib.AsyncExitStack() as stack:
            for it in self.ubds:
                stack.push_async_callback(_close, it.device)

    async def _open(
        self, stack: contextlib.AsyncExitStack, source: Source, options: OpenOptions
    ) -> Filesystem | BlockDevice:
        read_only = options.read_only or self.look_only
        opened = await source.open(replace(options, read_only=read_only, owner=self.owner))
        stack.push_async_callback(_close, opened)
        return opened

    async def _mount_of(
        self, stack: contextlib.AsyncExitStack, device: BlockDevice, place: str, source: Source, *, read_only: bool
    ) -> guest.Mount:
        """The mount of the filesystem on `device`; with `read_only` the device stays as it is.

        Even then the guest may write, for as long as it lives: a filesystem that was not unmounted has to replay its
        journal before it makes sense.
        """
        from umlfs.cow.scratch import Scratch  # see open_ubds

        kind = await self._filesystem_on(device, source)
        if read_only:
            device = Scratch(device)
            stack.push_async_callback(device.close)
        keeps = self.writes_disks
        disk = self.add_disk(place, device, serial="", read_only=False)
        self.writes_disks = keeps or not read_only
        return guest.Mount(f"/dev/{disk}", place, kind, "ro" if read_only else "rw")

    async def _filesystem_on(self, device: BlockDevice, source: Source) -> str:
        """What the guest is to mount `device` as. UmlError if that is nothing."""
        kind = await probe.probe(device)
        if kind == probe.PARTITIONED:
            raise UmlError(f"{source}: a disk with partitions, not a filesystem", "attach it with --ubd")
        if kind is None:
            raise UmlError(f"{source}: no filesystem in it that the guest could mount", "attach it with --ubd")
        self._note_raid(kind)
        return kind

    def _note_raid(self, kind: str | None) -> None:
        """A disk that holds nothing known yet, or partitions, may be or become btrfs or part of a RAID."""
        self.raid |= kind in (None, probe.PARTITIONED, "btrfs")


def plain_file(source: Source) -> Source:
    """`source`; if it is a file that somebody named without saying its kind, and holds nothing that could be mounted,
    that file as a hostfs shows it."""
    if not source.detected or source.scheme != "raw":
        return source
    with open(source.argument, "rb") as file:
        kind = probe.kind_of(file.read(probe.HEAD))
    return source if kind else as_source(f"hostfs:{source.argument}")


def disk_of(spec: Spec, device: BlockDevice) -> VirtioBlk:
    """What serves the guest a ubd device."""
    return VirtioBlk(
        device,
        serial=spec.serial or spec.name,
        read_only=spec.read_only,
        discard=not spec.no_trim,
        name=spec.name,
    )


def _word(name: str) -> str:
    """`ubd0`, for the disk `ubda`."""
    return f"ubd{ord(name[3]) - ord('a')}"


def disk_name(number: int) -> str:
    """What the virtio_blk driver calls its disk `number`: vda to vdz, vdaa and so on."""
    name = ""
    while number >= 0:
        name = chr(ord("a") + number % 26) + name
        number = number // 26 - 1
    return f"vd{name}"


async def _close(opened: Filesystem | BlockDevice) -> None:
    """Close it even if the machine was cancelled: what was not written yet would be lost."""
    with trio.CancelScope(shield=True):
        await opened.close()
