"""The sources of a machine's root and mounts, opened and told to its guest."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Sequence

from runtime import guest
from runtime.guest import kernel_modules
from runtime.guest.kernel_modules import KernelModules
from runtime.kernels.kernel import Kernel
from runtime.machine.equipment import BASE_MODULES, Equipment, HostMount
from umlfs.errors import UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, Source, as_source


async def open_modules(equipment: Equipment, stack: contextlib.AsyncExitStack, kernel: Kernel) -> None:
    """Let the guest find the kernel's modules, if it has any that are files. UmlError."""
    if kernel.modules is None:
        return
    opened = await equipment.open(stack, as_source(f"hostfs:{kernel.modules}"), OpenOptions(read_only=True))
    assert isinstance(opened, Filesystem)
    equipment.add_filesystem(kernel_modules.TAG, opened, read_only=True)
    found = kernel_modules.nodes(kernel.modules, BASE_MODULES)
    equipment.kernel_modules = KernelModules(kernel.version, list(found))


async def open_root(
    equipment: Equipment, stack: contextlib.AsyncExitStack, source: Source, *, writable: bool, flags: str = ""
) -> Filesystem | None:
    """Open the source of the root, to be mounted with `flags`; the filesystem, if it is one. UmlError, UsageError."""
    opened = await equipment.open(stack, source, OpenOptions(read_only=not writable, snapshot=not writable))
    if isinstance(opened, Filesystem):
        if writable and opened.traits.read_only and not equipment.look_only:
            raise UsageError(
                f"{source}: it is only read",
                "leave out --rw (with boot, say --throwaway), or make a root of it: 'uml image convert'",
            )
        equipment.add_filesystem("root", opened, read_only=not writable, lower_layer=not writable)
        equipment.root = guest.Mount("root", "/", options=flags or ("rw" if writable else "ro"))
        return opened
    from runtime.machine.attaching import mount_of  # most machines have no disk

    equipment.root = await mount_of(equipment, stack, opened, "/", source, read_only=not writable)
    if flags:
        equipment.root = equipment.root._replace(options=flags)
    return None


async def open_mounts(equipment: Equipment, stack: contextlib.AsyncExitStack, mounts: Sequence[HostMount]) -> None:
    """Open the sources of further mounts. UmlError, UsageError."""
    for number, mount in enumerate(mounts):
        wanted = OpenOptions(read_only=mount.read_only, extra=dict(mount.options), announces=True)
        opened = await equipment.open(stack, plain_file(mount.source), wanted)
        options = "ro" if mount.read_only else "rw"
        place = posixpath.normpath(mount.place)
        if isinstance(opened, Filesystem):
            tag = f"mount{number}"
            equipment.add_filesystem(tag, opened, read_only=mount.read_only)
            name = only_file(opened)
            announced = opened.changes is not None
            equipment.mounts.append(guest.Mount(tag, place, options=options, file=name, announced=announced))
        else:
            from runtime.machine.attaching import mount_of

            mounted = await mount_of(equipment, stack, opened, place, mount.source, read_only=mount.read_only)
            equipment.mounts.append(mounted)


def plain_file(source: Source) -> Source:
    """`source`; if it is a file that somebody named without saying its kind, and holds nothing that could be mounted,
    that file as a hostfs shows it."""
    if not source.detected or source.scheme != "raw":
        return source
    from umlfs.blocks import probe

    with open(source.argument, "rb") as file:
        kind = probe.kind_of(file.read(probe.HEAD))
    return source if kind else as_source(f"hostfs:{source.argument}")


def only_file(filesystem: Filesystem) -> str:
    """The name of the file that is meant, if `filesystem` shows a single one; else empty."""
    from umlfs.views.one_file import OneFile

    return os.fsdecode(filesystem.name) if isinstance(filesystem, OneFile) else ""
