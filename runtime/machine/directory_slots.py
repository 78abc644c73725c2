"""Filesystems for a guest that runs already: put into the slots that it was booted with, and mounted by its agent."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from runtime.machine.equipment import HostMount
from runtime.machine.in_transit import InTransit
from runtime.machine.opening import only_file, plain_file
from umlfs.errors import UmlError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions
from umlfs.virtio.slot import Slot

Script = Callable[[str, Sequence[str]], Awaitable[None]]
"""Has the guest's agent run a shell script with arguments. UmlError if it fails, with what it said."""

# The kernel allows a FUSE filesystem 1 % of the memory for pages not written back yet, and reads 128 KiB ahead.
_MOUNT = """\
[ -d "$2" ] || mkdir -p "$2" && mount -t virtiofs -o "$3" "$1" "$2" || exit
bdi=/sys/class/bdi/$(mountpoint -d "$2")
echo 60 >"$bdi/max_ratio"
echo 1024 >"$bdi/read_ahead_kb"
"""
_MOUNT_FILE = """\
[ ! -d "$2" ] || rmdir "$2" || exit
[ -e "$2" ] || { mkdir -p "${2%/*}" && : >"$2"; } || exit
whole=$2.whole
mkdir "$whole" && mount -t virtiofs -o "$3" "$1" "$whole" || exit
mount --bind "$whole/$4" "$2"
status=$?
umount -l "$whole"
rmdir "$whole"
exit $status
"""
_UNMOUNT = '! mountpoint -q "$1" || umount "$1"'
_UNMOUNT_FILE = """\
! grep -q " $1 " /proc/mounts || umount "$1" || exit
[ -s "$1" ] || rm "$1"
"""


@dataclass(slots=True)
class _Plugged:
    mount: HostMount
    slot: Slot
    filesystem: Filesystem

    @property
    def file(self) -> str:
        """The name of the single file that it shows; else empty."""
        return only_file(self.filesystem)


class Slots:
    """The slots of one machine, and what is in them."""

    def __init__(self, slots: Sequence[Slot], script: Script, owner: tuple[int, int] | None = None) -> None:
        """What belongs to the caller here is `owner`'s in the guest, a uid and a gid."""
        self._free = list(slots)
        self._count = len(slots)
        self._script = script
        self._owner = owner
        self._plugged: dict[str, _Plugged] = {}
        """By their places."""
        self._in_transit = InTransit[str]()

    @property
    def free(self) -> Sequence[Slot]:
        """Those without a filesystem."""
        return self._free

    @property
    def mounts(self) -> Sequence[HostMount]:
        """What is in the others."""
        return [it.mount for it in self._plugged.values()]

    def at(self, place: str) -> HostMount | None:
        """What was plugged at `place`."""
        found = self._plugged.get(place)
        return None if found is None else found.mount

    async def plug(self, mount: HostMount) -> None:
        """Open a source, and have the guest mount it.

        UmlError, UsageError: then nothing is left of it, unless the guest did not answer in time, and may mount it yet.
        """
        if mount.place in self._plugged or mount.place in self._in_transit:
            raise UmlError("Device is already configured")
        if not self._free:
            raise UmlError(f"no slot left of {self._count}", "remove another, or boot with more: --slots")
        with self._in_transit.changing(mount.place):
            await self._plug(mount, self._free.pop(0))

    async def _plug(self, mount: HostMount, slot: Slot) -> None:
        try:
            filesystem = await _open(mount, self._owner)
        except BaseException:
            self._free.append(slot)
            raise
        self._plugged[mount.place] = it = _Plugged(mount, slot, filesystem)
        slot.insert(filesystem, read_only=mount.read_only, name=mount.place)
        options = "ro" if mount.read_only else "rw"
        try:
            words = [slot.tag, mount.place, options]
            if it.file:
                await self._script(_MOUNT_FILE, [*words, it.file])
            else:
                await self._script(_MOUNT, words)
        except UmlError:
            if not slot.mounted:
                await self._empty(it)
            raise

    async def unplug(self, place: str) -> None:
        """Have the guest unmount what is at `place`, and close it. UmlError while it is in use."""
        it = self._plugged.get(place)
        if it is None:
            raise UmlError("Device is not configured")
        if place in self._in_transit:
            raise UmlError("Device is busy", "try again")
        with self._in_transit.changing(place):
            if it.slot.mounted:
                await self._script(_UNMOUNT_FILE if it.file else _UNMOUNT, [place])
            if it.slot.mounted:
                raise UmlError("Device is still mounted elsewhere in the guest", "unmount it there, and try again")
            await self._empty(it)

    async def _empty(self, it: _Plugged) -> None:
        await it.slot.take_out()
        del self._plugged[it.mount.place]
        self._free.append(it.slot)
        with trio.CancelScope(shield=True):
            await it.filesystem.close()

    async def close(self) -> None:
        """Close what is in them; when no guest is there any more."""
        with trio.CancelScope(shield=True):
            async with contextlib.AsyncExitStack() as stack:
                for it in self._plugged.values():
                    stack.push_async_callback(it.filesystem.close)


async def _open(mount: HostMount, owner: tuple[int, int] | None) -> Filesystem:
    options = OpenOptions(read_only=mount.read_only, extra=dict(mount.options), owner=owner)
    opened = await plain_file(mount.source).open(options)
    if not isinstance(opened, Filesystem):
        await opened.close()
        raise UmlError(f"{mount.source}: a disk, not a directory", "config ubd<N>= takes disks")
    return opened
