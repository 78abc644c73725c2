"""What a machine is equipped with: every source opened, as a device, and what the guest is to do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from runtime import guest
from runtime.guest.kernel_modules import KernelModules
from runtime.guest.network import GuestNetwork
from runtime.jail.grants import Grants
from umlfs.block import BlockDevice
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source, as_source
from umlfs.virtio import fs as virtio_fs
from umlfs.virtio.device import VirtioDevice

if TYPE_CHECKING:  # most machines have none of these
    from runtime.machine.announcing import Announcing
    from runtime.machine.disk import Ubd
    from umlfs.virtio.disk_slot import DiskSlot
    from umlfs.virtio.slot import Slot

OVERLAY_MODULE: Final = "overlay"
BASE_MODULES: Final = ("fuse", "virtiofs", OVERLAY_MODULE)
BLOCK_MODULE: Final = "virtio_blk"
BALLOON_MODULE: Final = "virtio_balloon"


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
    announcing: Announcing | None = None
    """What tells the guest's programs of changes on the host, if anything does."""
    grants: Grants = field(default_factory=Grants)
    """What the kernel process is given of the host besides."""
    writes_disks: bool = False
    """The guest may write to a disk: it must let go of its filesystems before it ends."""
    disks: int = 0
    """How many disks it has from the start."""
    balloon: bool = False
    """It gives back memory that it does not use."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The kernel modules that the guest needs, outermost last."""
        own = [name for name, there in ((BLOCK_MODULE, self.disks), (BALLOON_MODULE, self.balloon)) if there]
        return (*BASE_MODULES, *own, *self.network_modules)

    @property
    def later(self) -> tuple[str, ...]:
        """Those that it may come to need."""
        return (BLOCK_MODULE,) if self.disk_slots else ()

    def add_filesystem(
        self, tag: str, filesystem: Filesystem, *, read_only: bool = False, lower_layer: bool = False
    ) -> None:
        """One more virtio-fs device; the guest has an overlay over a `lower_layer`."""
        announcements = None if filesystem.changes is None else self._announcer().add(filesystem)
        device = virtio_fs.VirtioFs(
            tag, filesystem, read_only=read_only, lower_layer=lower_layer, announcements=announcements
        )
        self.add(device, virtio_fs.DEVICE_ID)

    def _announcer(self) -> Announcing:
        if self.announcing is None:
            from runtime.machine.announcing import Announcing

            self.announcing = Announcing()
        return self.announcing

    @property
    def shared(self) -> Sequence[virtio_fs.VirtioFs]:
        """Devices whose filesystems may have locks of the host."""
        found = [each.device for each in self.devices if isinstance(each.device, virtio_fs.VirtioFs)]
        return [each for each in found if each in self.slots or each.session.filesystem.traits.locks]

    def add_slots(self, count: int) -> None:
        """More virtio-fs devices, for filesystems that come later."""
        if count:
            from umlfs.virtio.slot import Slot
        for number in range(count):
            slot = Slot(f"slot{number}")
            self.slots.append(slot)
            self.add(slot, virtio_fs.DEVICE_ID)

    def add_balloon(self) -> None:
        """Have memory that the guest does not use any more go back to the host."""
        from umlfs.virtio import balloon

        self.add(balloon.VirtioBalloon(), balloon.DEVICE_ID)
        self.balloon = True

    def add(self, device: VirtioDevice, kind: int) -> None:
        """One more device of that virtio ID."""
        self.devices.append(Device(device, kind, self.directory / str(len(self.devices))))

    async def open(
        self, stack: contextlib.AsyncExitStack, source: Source, options: OpenOptions
    ) -> Filesystem | BlockDevice:
        """What is opened of a source, to be closed by `stack`. UmlError, UsageError."""
        read_only = options.read_only or self.look_only
        opened = await source.open(replace(options, read_only=read_only, owner=self.owner))
        stack.push_async_callback(shielded_close, opened)
        return opened


async def shielded_close(opened: Filesystem | BlockDevice) -> None:
    """Close it even if the machine was cancelled: what was not written yet would be lost."""
    with trio.CancelScope(shield=True):
        await opened.close()
