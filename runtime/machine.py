"""A machine: a kernel process, its devices, and the agent in its guest, as tasks of one trio nursery."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from runtime import guest, initramfs
from runtime.control import ControlFilesystem, Job, Sink, Source
from runtime.equipment import OVERLAY_MODULE, Disk, Equipment, HostMount
from runtime.keeper import Keeper
from runtime.kernel import Kernel, find_kernel
from runtime.log import KernelLog
from runtime.memory import DEFAULT, memory_directory
from runtime.places import check_places
from runtime.plan import ARCHIVE, kernel_arguments
from runtime.tuning import command_line, remember_lpj, tuning
from umlfs.errors import UmlError
from umlfs.serve import vhost_user
from umlfs.ubd import Spec

BOOT_SECONDS: Final = 60.0
"""How long a guest may take until its agent answers. A hundred times what it takes."""
SETTLE_SECONDS: Final = 30.0
"""How long a guest may take at the end to write back what it holds for its disks."""
LOG_SECONDS: Final = 1.0
"""How long the log of a kernel that has ended may take to be read."""
TERMINAL: Final = "/dev/tty1"
"""The guest's end of the terminal that `Machine.terminal` is the host's end of."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a machine is made of."""

    root: str = "hostfs:/"
    """The source of the root filesystem."""
    writable: bool = False
    """Changes to the root go through to the source; else they go to the guest's memory and are gone with it."""
    mounts: Sequence[HostMount] = ()
    ubds: Sequence[Spec] = ()
    """Disks, as the kernel's command line names them (`umlfs.ubd.parse`)."""
    native_ubd: bool = False
    """The kernel's own ubd driver takes the disks."""
    disks: Sequence[Disk] = ()
    """Further disks: block devices of any kind, open already."""
    program: bytes | None = None
    """A static program that is the whole guest, in the place of a root: its init, and the agent that takes jobs from
    the control filesystem (`runtime.control`). It loads the modules whose paths are the lines of /modules."""
    modules: Sequence[str] = ()
    """Further kernel modules for `program` to load."""
    arguments: Sequence[str] = ()
    """Further words for the kernel's command line."""
    memory: int = DEFAULT
    """In bytes."""
    kernel: str | None = None
    """The kernel's file; by default the one that is installed."""
    terminal: bool = False
    """Make a terminal for a command to run on."""
    name: str = "umlfs"
    """The guest's host name."""
    boot_seconds: float = BOOT_SECONDS
    on_log: Callable[[bytes], None] | None = field(default=None, compare=False)
    """Called with each line of the kernel's log."""


class Machine:
    """A running guest, from the entry of its context to the exit.

        async with Machine(Options(root="hostfs:/")) as machine:
            job = machine.start(["uname", "-a"], stdout=sink)
            status = await job.wait()

    Entering boots and returns when the guest takes commands; UmlError if it does not come so far. However the
    context ends, the kernel and all its helpers are gone afterwards, and so are its sockets and files; and
    they go if our process is killed.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.terminal: int | None = None
        """The host's end of the guest's terminal, a descriptor without blocking; if one was asked for."""
        self._control = ControlFilesystem()
        self._log = KernelLog(self.options.on_log)
        self._stack = contextlib.AsyncExitStack()
        self._ended = trio.Event()

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self._running())
        except BaseExceptionGroup as group:
            raise sole(group) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise sole(group) from None

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: Source | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        on_terminal: bool = False,
    ) -> Job:
        """Run `command` in the guest after those started before it; an empty one is a shell.

        Without a stream the command reads nothing, and what it writes is dropped. It starts in `directory`, an
        error if that does not exist; by default in the caller's own, where the guest has it. `environment` is
        all that it gets.
        """
        if on_terminal and self.terminal is None:
            raise ValueError("the machine has no terminal")
        job = Job(stdin, stdout, stderr)
        if self._ended.is_set():
            job.finish(failure=UmlError("the guest is gone"))
            return job
        script = guest.job_script(
            command,
            number=self._control.next_number,
            directory=directory or _working_directory(),
            must_enter=directory is not None,
            environment=environment or {},
            user=user,
        )
        self._control.submit(job, script, TERMINAL if on_terminal else "")
        return job

    @property
    def log(self) -> list[bytes]:
        """The last lines of the kernel's log."""
        return list(self._log.lines)

    # Booting ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        options = self.options
        async with contextlib.AsyncExitStack() as stack:
            check_places(mount.place for mount in options.mounts)
            kernel = find_kernel(options.kernel)
            memory = memory_directory(options.memory)
            keeper = stack.enter_context(Keeper())
            directory = keeper.directory
            equipment = await self._equip(stack, directory)
            listeners = [
                await stack.enter_async_context(vhost_user.listening(str(device.socket)))
                for device in equipment.devices
            ]
            # Tasks end before what they work on is closed.
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            for device, listener in zip(equipment.devices, listeners, strict=True):
                nursery.start_soon(vhost_user.serve, device.device, listener)
            await trio.to_thread.run_sync(self._write_archive, directory / ARCHIVE, kernel, equipment)
            self._start_kernel(stack, nursery, kernel, keeper, equipment, memory)
            await self._wait_until_ready()
            yield
            if equipment.writes_disks and not self._ended.is_set():
                with trio.move_on_after(SETTLE_SECONDS):
                    await self._control.settle()

    async def _equip(self, stack: contextlib.AsyncExitStack, directory: Path) -> Equipment:
        """Open every source."""
        options = self.options
        equipment = Equipment(directory)
        equipment.add_filesystem(guest.CONTROL_TAG, self._control)
        if options.program is None:
            await equipment.open_root(stack, options.root, writable=options.writable)
        await equipment.open_mounts(stack, options.mounts)
        await equipment.open_ubds(stack, options.ubds, native=options.native_ubd)
        await equipment.add_disks(options.disks)
        equipment.arguments += options.arguments
        return equipment

    def _write_archive(self, path: Path, kernel: Kernel, equipment: Equipment) -> None:
        """The initramfs of this boot: what every boot has, and then what this one adds."""
        program = self.options.program
        if program is not None:
            names = (*(name for name in equipment.modules if name != OVERLAY_MODULE), *self.options.modules)
            paths = "".join(f"{path}\n" for path in initramfs.module_paths(kernel, names))
            extra = {"modules": paths.encode()}
            shutil.copyfile(initramfs.build(kernel, names, program, None, extra, scratch=path.parent), path)
            return
        boot = guest.Boot(
            equipment.root,
            overlay=not self.options.writable,
            mounts=equipment.mounts,
            links=equipment.links,
            hostname=self.options.name,
        )
        init = guest.script("init.sh").encode()
        base = initramfs.build(kernel, equipment.modules, init, initramfs.find_busybox(), scratch=path.parent)
        shutil.copyfile(base, path)
        with path.open("ab") as file:
            file.write(guest.archive(boot, initramfs.load_snippet(kernel, equipment.modules)))

    def _start_kernel(
        self,
        stack: contextlib.AsyncExitStack,
        nursery: trio.Nursery,
        kernel: Kernel,
        keeper: Keeper,
        equipment: Equipment,
        memory: Path,
    ) -> None:
        tuned = tuning(kernel, btrfs=equipment.btrfs)
        arguments = [
            *kernel_arguments(self.options.memory, keeper.directory),
            *(device.argument for device in equipment.devices),
            *equipment.arguments,
            *tuned.arguments(),
        ]
        inherited = []
        if self.options.terminal:
            self.terminal, line = os.openpty()
            stack.callback(os.close, self.terminal)
            os.set_blocking(self.terminal, False)
            arguments.append(f"con1=fd:{line}")
            inherited.append(line)
        try:
            process = keeper.spawn(
                [kernel.path, *command_line(arguments)],
                output=subprocess.PIPE,
                pass_fds=inherited,
                env={"TMPDIR": str(memory), "PATH": os.defpath, "HOME": str(keeper.directory)},
            )
        finally:
            for line in inherited:
                os.close(line)
        # The kernel goes before its devices do.
        stack.callback(keeper.close)
        assert process.stderr is not None
        pipe = trio.lowlevel.FdStream(os.dup(process.stderr.fileno()))
        process.stderr.close()
        nursery.start_soon(self._log.keep, pipe)
        nursery.start_soon(self._watch, keeper, process)
        if tuned.lpj is None:
            nursery.start_soon(self._learn, kernel)

    async def _learn(self, kernel: Kernel) -> None:
        """Keep what this boot measured for the next one."""
        await self._control.ready.wait()
        remember_lpj(kernel, b"\n".join(self._log.lines))

    async def _watch(self, keeper: Keeper, process: subprocess.Popen[bytes]) -> None:
        status = await keeper.wait(process)
        with trio.move_on_after(LOG_SECONDS):
            await self._log.complete.wait()
        self._ended.set()
        self._control.stop(self._log.failure(f"the guest ended by itself ({_ending(status)})"))

    async def _wait_until_ready(self) -> None:
        """Return when the agent asks for its first job. UmlError if it never will."""
        with trio.move_on_after(self.options.boot_seconds):
            async with trio.open_nursery() as nursery:
                for event in (self._control.ready, self._control.reported, self._ended):
                    nursery.start_soon(_cancel_after, event, nursery.cancel_scope)
        if self._control.ready.is_set():
            return
        if self._control.reported.is_set():
            raise UmlError(guest.explain(self._control.report.decode(errors="surrogateescape")))
        if self._ended.is_set():
            raise self._log.failure("the kernel ended before its guest was up")
        raise self._log.failure(f"the guest did not come up within {self.options.boot_seconds:g} s")


def sole(error: BaseException) -> BaseException:
    """The one exception in a group, however deep; the group itself if there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _ending(status: int) -> str:
    return f"the kernel died of signal {-status}" if status < 0 else f"the kernel's exit status was {status}"


def _working_directory() -> str:
    """The caller's own; / if it was removed meanwhile."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
