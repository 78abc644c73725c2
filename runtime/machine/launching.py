"""Starting the kernel process: in a jail, unless there is to be none."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.jail.grants import Grants
from runtime.jail.layers import OPEN, Layers, Mode
from runtime.kernels.kernel import Kernel
from runtime.machine.options import Options
from runtime.machine.plan import own_directory
from runtime.process.keeper import Keeper
from runtime.process.kernel_process import KernelProcess
from runtime.process.memory import is_volatile
from umlfs.errors import naming


class StartedKernel(NamedTuple):
    """A kernel process, and its jail."""

    process: KernelProcess
    uid: int
    """The user that it runs as."""
    layers: Layers = OPEN
    """What the jail has come to be."""
    own: int | None = None
    """A descriptor of the directory of the kernel's own that its jail shows it; None without a jail."""
    refusals: int = -1
    """The descriptor that tells of system calls that were refused; -1 if nothing does."""


def start_kernel(
    stack: contextlib.ExitStack | contextlib.AsyncExitStack,
    kernel: Kernel,
    keeper: Keeper,
    options: Options,
    grants: Grants,
    command: Sequence[str],
    memory: Path,
) -> StartedKernel:
    """Start the kernel with its guest's memory in the directory `memory`. What is left of the jail goes with `stack`.
    UmlError; OSError."""
    environment = {"TMPDIR": str(keeper.memory or memory), "PATH": os.defpath, "HOME": str(keeper.directory)}
    process: KernelProcess
    if options.jail is Mode.OFF:
        process = keeper.spawn(command, output=subprocess.PIPE, pass_fds=grants.descriptors, env=environment)
        return StartedKernel(process, os.geteuid())
    from runtime.jail.launch import Launch  # a plan that is only shown, or has no jail, needs none of it

    assert keeper.memory is not None
    launch = Launch(
        options.jail,
        kernel.path,
        kernel.version,
        directory=keeper.directory,
        memory=options.memory,
        memory_directory=keeper.memory,
        memory_on_disk=not is_volatile(memory),
        grants=grants,
        tells=True,
        group=keeper.directory.name,
    )
    if launch.group is not None:
        stack.callback(launch.group.remove)
        keeper.note_group(launch.group.path)
        stack.callback(keeper.close)
    with launch:
        launch.prepare()
        process = keeper.launch(launch, command, output=subprocess.PIPE, pass_fds=grants.descriptors, env=environment)
    own = launch.directory
    stack.callback(os.close, own)
    # In there it has another number.
    note = own_directory(options, keeper.directory) / "pid"
    with naming(note):
        note.write_text(f"{process.pid}\n")
    return StartedKernel(process, launch.user.uid, launch.layers, own, launch.refusals)
