"""What a machine is started with: its devices opened, its kernel's command line, and both shown to a person."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime import guest
from runtime.jail.grants import OWN
from runtime.jail.kernel_arguments import grant_words
from runtime.jail.layers import Mode
from runtime.jail.watchdog import grant_watchdog
from runtime.kernels.doors import shut_doors
from runtime.kernels.execution import words as execution_words
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.modules import has_module
from runtime.kernels.tuning import Tuning, command_line, tuning
from runtime.machine.control import ControlFilesystem
from runtime.machine.equipment import BALLOON_MODULE, Equipment
from runtime.machine.mount_points import check_places, check_there
from runtime.machine.opening import open_modules, open_mounts, open_root
from runtime.machine.options import Options
from runtime.process.memory import memory_directory, needed_at_least
from umlfs.errors import UsageError
from umlfs.sources import as_source

GIVES_BACK: Final = 1 << 30
"""Bytes of memory from which on a machine that stays up gives the host what it does not use any more. It does so in
blocks of 4 MiB: a small one would have few that are free."""
ARCHIVE: Final = "initramfs"
"""The name of the guest's initramfs in the machine's directory."""
DEVICES_MAX: Final = 44
"""A virtio_uml device takes an interrupt of the kernel's, of which 6.1 has 45 to give, and 7.2 has 44."""
NO_REBOOT: Final = "noreboot"
"""Has a kernel that is to start again end instead, so that it does not do so with devices that we are closing."""


def _with_filters(words: Sequence[str], directory: Path, look_only: bool) -> Sequence[str]:
    """The kernel's words, with files in the place of filters that are written out. UsageError."""
    if not any("bpffile=" in word for word in words):
        return words
    from runtime.network import filters  # few machines have any

    return filters.filed(words, directory, look_only=look_only)


def _common_arguments(memory: int, directory: Path, own: Path) -> list[str]:
    """What every kernel is told, devices apart; what it makes by itself goes to the directory `own`."""
    return [
        f"mem={memory >> 10}K",
        f"umid={directory.name}",
        f"uml_dir={own}/",
        f"initrd={directory}/{ARCHIVE}",
        "lsm=",  # security modules have no policy here, and cost time at each call
        "root=",  # else the initramfs is a ramfs, which cannot be an overlay's upper layer
        "con=none",
        "ssl=none",
        "con0=null,fd:2",
    ]


async def equip(
    stack: contextlib.AsyncExitStack,
    kernel: Kernel,
    options: Options,
    directory: Path,
    control: ControlFilesystem,
    *,
    look_only: bool = False,
) -> Equipment:
    """Open every source that `options` name, to be closed by `stack`. The sockets go to `directory`. UmlError,
    UsageError."""
    check_places(mount.place for mount in options.mounts)
    has_agent = not options.initrd
    equipment = Equipment(directory, raid=bool(options.initrd), look_only=look_only)
    equipment.owner = options.owner if os.geteuid() else None
    if has_agent:
        equipment.add_filesystem(guest.CONTROL_TAG, control)
    if options.program is None and options.root_disk is None and has_agent:
        await _equip_root(equipment, stack, options)
    if options.program is None and has_agent and not options.writable:
        await open_modules(equipment, stack, kernel)
    await open_mounts(equipment, stack, options.mounts)
    if equipment.announcing is not None:
        equipment.announcing.offer(control)
    if options.ubds or options.root_disk or options.disks:
        await _attach_disks(equipment, stack, options)
    equipment.add_slots(options.slots)
    if options.disk_slots:
        from runtime.machine.attaching import add_disk_slots  # as below

        add_disk_slots(equipment, options.disk_slots)
    if options.memory >= GIVES_BACK and options.init is not None and has_module(kernel, BALLOON_MODULE):
        equipment.add_balloon()
    _check_devices(equipment)
    equipment.arguments += _with_filters(options.arguments, directory, look_only)
    if not look_only and any(word.startswith("iomem=") for word in options.arguments):
        from runtime.machine import shared_memory

        shared_memory.make_ready(options.arguments)
    if options.jail is not Mode.OFF:
        grants = equipment.grants
        grant_words(grants, [*options.arguments, f"time-travel={options.execution.time_travel}"])
        if options.init is not None or options.initrd:  # a machine that stays up
            grant_watchdog(grants)
        equipment.arguments.append(shut_doors(hostfs=grants.hostfs, iomem=grants.iomem))
    return equipment


async def _equip_root(equipment: Equipment, stack: contextlib.AsyncExitStack, options: Options) -> None:
    source = as_source(options.root)
    if options.kernel_hostfs:
        from runtime.machine import kernel_hostfs  # few ask for it

        jailed = options.jail is not Mode.OFF
        equipment.root = kernel_hostfs.root(source, equipment.grants, writable=options.writable, jailed=jailed)
        return
    root = await open_root(equipment, stack, source, writable=options.writable, flags=options.root_flags)
    if root is not None and options.writable:
        await check_there(root, [mount.place for mount in options.mounts])


def _check_devices(equipment: Equipment) -> None:
    if len(equipment.devices) > DEVICES_MAX:
        raise UsageError(
            f"{len(equipment.devices)} devices for mounts, disks and slots: a guest has interrupts for {DEVICES_MAX}",
            "mount a directory that has several of them in it",
        )


async def _attach_disks(equipment: Equipment, stack: contextlib.AsyncExitStack, options: Options) -> None:
    from runtime.machine import attaching  # takes a while to load, and most machines of one command have no disk

    found = await attaching.open_ubds(equipment, stack, options.ubds, native=options.native_ubd)
    if options.root_disk is not None:
        attaching.root_on(equipment, options.root_disk, found, read_only=options.root_flags == "ro")
    await attaching.add_disks(equipment, options.disks)


def own_directory(options: Options, directory: Path) -> Path:
    """Where the kernel of a machine with this `directory` makes its own files, as it sees the host."""
    return directory if options.jail is Mode.OFF else directory / OWN


def kernel_command(
    kernel: Kernel, options: Options, equipment: Equipment, tuned: Tuning, lines: Mapping[int, object]
) -> list[str]:
    """The kernel's command line. `lines` are its terminals: the descriptors, by their numbers (`con`). UmlError if it
    is too long."""
    arguments = [
        *_common_arguments(options.memory, equipment.directory, own_directory(options, equipment.directory)),
        *(device.argument for device in equipment.devices),
        *execution_words(kernel, options.execution, jailed=options.jail is not Mode.OFF),
        *equipment.arguments,
        *tuned.arguments(),
        # The kernel leaves it among the words of its init, which a program may take for its own.
        *([NO_REBOOT] if options.program is None else []),
        *(f"con{number}=fd:{descriptor}" for number, descriptor in lines.items()),
    ]
    return [str(kernel.path), *command_line(arguments)]


async def plan(options: Options, command: Sequence[str]) -> list[str]:
    """What a machine of these options would be, in lines for a person. Every source is opened, as it would be but for
    reading only; no kernel is started, and nothing is changed. UmlError, UsageError, as a start would have them."""
    kernel = find_kernel(options.kernel)
    root = as_source(options.root)
    async with contextlib.AsyncExitStack() as stack:
        equipment = await equip(stack, kernel, options, Path("/RUN"), ControlFilesystem(), look_only=True)
        tuned = tuning(kernel, raid=equipment.raid)
        start = kernel_command(kernel, options, equipment, tuned, {1: "TERMINAL"} if options.terminal else {})
    by_itself = ", read by the kernel's own hostfs" if options.kernel_hostfs else ""
    return [
        f"kernel   {kernel.path} ({kernel.version}), modules in {kernel.modules}",
        f"memory   {options.memory >> 20} MiB in {memory_directory(needed_at_least(options.memory))}",
        f"root     {root.full}{by_itself}, {'changes go through' if options.writable else 'changes go to memory'}",
        *(f"mount    {it.place} = {it.source.full}{' (read-only)' * it.read_only}" for it in options.mounts),
        *(f"disk     {spec.name} = {spec}" for spec in options.ubds),
        *(f"network  eth{unit} on {it.described}" for unit, it in enumerate(options.networks)),
        f"start    {shlex.join(start)}",
        f"command  {shlex.join(command) if command else 'an interactive shell'}",
    ]
