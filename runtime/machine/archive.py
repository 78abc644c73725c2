"""The initramfs that a machine is booted with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runtime import guest
from runtime.guest import cpio, initramfs, stand_ins
from runtime.kernels.kernel import Kernel
from runtime.machine.equipment import OVERLAY_MODULE, Equipment
from runtime.machine.options import Options
from umlfs.sources import as_source


def write_archive(path: Path, kernel: Kernel, equipment: Equipment, options: Options) -> None:
    """Write the initramfs of one boot to `path`: what every boot has, then what this one adds. UmlError, OSError."""
    if options.initrd:
        given = initramfs.given(options.initrd)
        path.symlink_to(given)
        equipment.grants.read.append(Path(os.path.realpath(given)))
        return
    program = options.program
    if program is not None:
        names = (*(name for name in equipment.modules if name != OVERLAY_MODULE), *options.modules)
        paths = "".join(f"{path}\n" for path in initramfs.module_paths(kernel, names))
        extra = {"modules": paths.encode()}
        shutil.copyfile(initramfs.build(kernel, names, program, None, extra, scratch=path.parent), path)
        return
    boot = guest.Boot(
        equipment.root,
        overlay=not options.writable,
        mounts=equipment.mounts,
        links=equipment.links,
        disk_slots=[number for _, number in equipment.disk_slots],
        hostname=options.name,
        init=options.init,
        lock_modules=options.lock_modules,
        network=equipment.network,
        modules=equipment.kernel_modules,
        stand_ins=_stand_ins(equipment, options),
        announcer=_announcer(equipment),
    )
    init = guest.script("init.sh").encode()
    busybox = initramfs.find_busybox()
    base = initramfs.build(kernel, equipment.modules, init, busybox, later=equipment.later, scratch=path.parent)
    shutil.copyfile(base, path)
    with path.open("ab") as file:
        file.write(guest.archive(boot, initramfs.load_snippet(kernel, equipment.modules)))


def _announcer(equipment: Equipment) -> guest.Announcer | None:
    if equipment.announcing is None:
        return None
    from runtime.guest.announcer import program

    return guest.Announcer(program(), equipment.announcing.gid)


def _stand_ins(equipment: Equipment, options: Options) -> list[cpio.CpioEntry]:
    """For files of a private root that the caller may not read."""
    source = as_source(options.root)
    if equipment.owner is None or options.writable or options.root_disk is not None or source.scheme != "hostfs":
        return []
    return list(stand_ins.entries(source.argument))
