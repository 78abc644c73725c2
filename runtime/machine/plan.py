"""What a machine is started with, and how to show that to a person without starting it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runtime.kernels.kernel import find_kernel
from runtime.kernels.tuning import command_line, tuning
from runtime.machine.mount_points import check_places
from runtime.process.memory import memory_directory
from umlfs import sources
from umlfs.virtio import blk as virtio_blk
from umlfs.virtio import fs as virtio_fs

if TYPE_CHECKING:
    from runtime.machine.machine import Options

ARCHIVE: Final = "initramfs"
"""The name of the guest's initramfs in the machine's directory."""


def kernel_arguments(memory: int, directory: Path) -> list[str]:
    """What every kernel is told, devices apart."""
    return [
        f"mem={memory >> 10}K",
        f"umid={directory.name}",
        f"uml_dir={directory}/",
        f"initrd={directory}/{ARCHIVE}",
        "lsm=",  # security modules have no policy here, and cost time at each call
        "root=",  # else the initramfs is a ramfs, which cannot be an overlay's upper layer
        "con=none",
        "ssl=none",
        "con0=null,fd:2",
    ]


def plan(options: Options, command: Sequence[str]) -> list[str]:
    """What a machine of these options would be, in lines for a person; nothing is started."""
    kernel = find_kernel(options.kernel)
    root = sources.parse(options.root)
    mounts = [(mount, sources.parse(mount.source)) for mount in options.mounts]
    directory = Path("/RUN")
    devices = [f"virtio_uml.device={directory}/{number}:{virtio_fs.DEVICE_ID}" for number in range(2 + len(mounts))]
    if options.native_ubd:
        devices += [str(spec) for spec in options.ubds]
    else:
        first = len(devices)
        numbers = range(first, first + len(options.ubds))
        devices += [f"virtio_uml.device={directory}/{number}:{virtio_blk.DEVICE_ID}" for number in numbers]
    terminal = ["con1=fd:TERMINAL"] if options.terminal else []
    arguments = [*kernel_arguments(options.memory, directory), *devices, *terminal]
    check_places(mount.place for mount in options.mounts)
    return [
        f"kernel   {kernel.path} ({kernel.version}), modules in {kernel.modules}",
        f"memory   {options.memory >> 20} MiB in {memory_directory(options.memory)}",
        f"root     {root}, {'changes go through' if options.writable else 'changes go to memory'}",
        *(f"mount    {mount.place} = {source}{' (read-only)' * mount.read_only}" for mount, source in mounts),
        *(f"disk     {spec.name} = {spec}" for spec in options.ubds),
        f"start    {shlex.join([str(kernel.path), *command_line([*arguments, *tuning(kernel).arguments()])])}",
        f"command  {shlex.join(command) if command else 'an interactive shell'}",
    ]
