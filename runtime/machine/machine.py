"""A machine: a kernel process, its devices, and the agent in its guest, as tasks of one trio nursery."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio

from runtime import guest
from runtime.guest import kernel_modules
from runtime.jail.grants import Grants
from runtime.jail.layers import OPEN, Layers, Mode
from runtime.kernels.kernel import Kernel, find_kernel
from runtime.kernels.tuning import remember_lpj, tuning
from runtime.machine import ending
from runtime.machine.archive import write_archive
from runtime.machine.control import ControlFilesystem, InputStream, Job, OutputStream
from runtime.machine.equipment import Equipment, HostMount
from runtime.machine.launching import start_kernel
from runtime.machine.lock_signals import LockSignals
from runtime.machine.log import KernelLog
from runtime.machine.networking import Networking
from runtime.machine.options import Options
from runtime.machine.plan import ARCHIVE, equip, kernel_command
from runtime.machine.script import run_script
from runtime.machine.staging import Staging
from runtime.process.event_loop import require_trio
from runtime.process.keeper import Keeper
from runtime.process.kernel_process import KernelProcess
from runtime.process.memory import memory_directory, needed_at_least
from runtime.process.out_of_memory import Toll
from runtime.process.processes import kill_group
from runtime.process.processor import ProcessorChoice
from umlfs.errors import UmlError, sole
from umlfs.host.listening import unix_listener
from umlfs.host.watch import Watch
from umlfs.virtio import vhost_user
from umlfs.virtio.device import VirtioDevice

if TYPE_CHECKING:  # those that only a machine has that stays up
    from runtime.machine.directory_slots import Slots
    from runtime.machine.disk_slots import DiskSlots
    from runtime.mconsole.notify import Notifications
    from runtime.mconsole.wire import Notification
    from runtime.tty.ptys import Ends

__all__ = ["Machine", "Options", "TERMINAL"]

SETTLE_SECONDS: Final = 30.0
"""How long a guest may take at the end to write back what it holds for its disks."""
LOG_SECONDS: Final = 1.0
"""How long the log of a kernel that has ended may take to be read."""
OURS: Final = frozenset(f"virtio-fs {tag}" for tag in (guest.CONTROL_TAG, kernel_modules.TAG))
"""The devices that nobody asked for."""
NOTIFY: Final = "notify"
"""The socket that the kernel tells of itself at."""
TERMINAL: Final = 1
"""The guest's line (/dev/tty1) that `Machine.terminal` is the pty of."""


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
        self.terminals: dict[int, Ends] = {}
        """The ptys of the guest's terminals by their lines."""
        self.directory: Path | None = None
        """Of the sockets, while the machine runs."""
        self.pid: int | None = None
        """The kernel's."""
        self.layers: Layers = OPEN
        """What the kernel's jail has come to be."""
        self._uid = os.geteuid()
        """The user that the kernel runs as."""
        self._own: int | None = None
        """A descriptor of the directory of the kernel's own that its jail shows it; None without a jail."""
        self.returncode: int | None = None
        """The exit status of a kernel that has ended; -N after signal N."""
        self._killed_for = ""
        """Why this host's kernel killed it; empty if it did not."""
        self._cut_off = False
        """The kernel was ended because it did not do so by itself after its guest had shut down."""
        self._control = ControlFilesystem()
        self._log = KernelLog(self.options.on_log)
        self._stack = contextlib.AsyncExitStack()
        self._ended = trio.Event()
        self._booted = trio.Event()
        """The kernel said so; it does where `Options.on_notification` listens."""
        self.staging = Staging(self._control)
        self._equipment: Equipment | None = None
        self.networking = Networking(self.options, self._reconnect)

    async def __aenter__(self) -> Self:
        require_trio()
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
        stdin: InputStream | None = None,
        stdout: OutputStream | None = None,
        stderr: OutputStream | None = None,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        terminal: int | None = None,
    ) -> Job:
        """Run `command` in the guest, after those started before it unless that stays up; an empty one is a shell.

        Without a stream the command reads nothing, and what it writes is dropped. It starts in `directory`, an
        error if that does not exist; by default in the caller's own, where the guest has it. `environment` is
        all that it gets. It runs on line `terminal` instead of streams if one is given.
        """
        if terminal is not None and terminal not in self.terminals:
            raise ValueError(f"the machine has no terminal {terminal}")
        job = Job(stdin, stdout, stderr)
        if self._ended.is_set() or not self.has_agent:
            job.finish(failure=UmlError("the guest is gone") if self.has_agent else self.no_agent())
            return job
        how = job.streams if terminal is None else f"/dev/tty{terminal}"
        staged = self.staging.take(how)
        script = guest.job_script(
            command,
            number=self._control.next_number if staged is None else staged.number,
            directory=directory or _working_directory(),
            must_enter=directory is not None,
            environment=environment or {},
            user=user,
        )
        if staged is None:
            self._control.submit(job, script, "" if terminal is None else how)
            return job
        staged.stdin, staged.stdout, staged.stderr = stdin, stdout, stderr
        staged.begin(script)
        return staged

    def start_program(
        self, program: bytes, *, stdin: InputStream, stdout: OutputStream, arguments: Sequence[str] = ()
    ) -> Job:
        """Run `program`, an executable that needs nothing of the guest's root, as the guest's root user. It gets its
        job's number and `arguments`, and opens its streams in the control filesystem by itself: what is said there goes
        straight to the host and back."""
        job = Job(stdin, stdout)
        if self._ended.is_set():
            job.finish(failure=UmlError("the guest is gone"))
            return job
        self._control.submit(job, guest.program_script(self._control.next_number, arguments), program=program)
        return job

    @property
    def has_agent(self) -> bool:
        """Whether the guest runs an agent of ours."""
        return not self.options.initrd

    @staticmethod
    def no_agent() -> UmlError:
        """What to say where the agent is missed."""
        return UmlError("the guest has no agent: it was booted by an initrd= of its own", "use its consoles")

    def retire(self, job: Job) -> None:
        """Forget a job that is over: a machine that stays up would remember every one it ran."""
        self._control.retire(job)

    @property
    def terminal(self) -> Ends | None:
        """The pty of the terminal that `Options.terminal` asked for."""
        return self.terminals.get(TERMINAL)

    async def ended(self) -> None:
        """Wait until the kernel has ended by itself."""
        await self._ended.wait()

    def failure(self, what: str) -> UmlError:
        """The error that `what` happened to the guest, with the end of the kernel's log."""
        return self._log.failure(what)

    def hear(self, data: bytes) -> None:
        """The kernel's console said `data`: for machines whose console is another's (`Options.arguments`)."""
        self._log.feed(data)

    async def last_words(self) -> None:
        """Wait until the kernel that has ended has said why, if it says that at all."""
        with trio.move_on_after(LOG_SECONDS):
            await self._log.ending.wait()

    def kill(self) -> None:
        """End the kernel at once: what the guest has not written yet is lost."""
        if self.pid is not None and self.returncode is None:
            kill_group(self.pid)

    @property
    def plugged(self) -> Sequence[HostMount]:
        """The filesystems that came while the guest ran."""
        return () if self._equipment is None else self.slots.mounts

    @cached_property
    def slots(self) -> Slots:
        """For filesystems that come while the guest runs."""
        from runtime.machine.directory_slots import Slots

        assert self._equipment is not None
        return Slots(self._equipment.slots, partial(run_script, self), self._equipment.owner)

    @cached_property
    def disk_slots(self) -> DiskSlots:
        """For disks that come while the guest runs; those of the boot are among them."""
        from runtime.machine.disk_slots import DiskSlots

        assert self._equipment is not None
        return DiskSlots(self._equipment.disk_slots, self._equipment.ubds, partial(run_script, self))

    @property
    def devices(self) -> list[str]:
        """The names of the devices that we serve."""
        return [device.name for device in self._devices]

    @property
    def stores(self) -> list[VirtioDevice]:
        """The devices that we serve, but for the guest's agent and for its kernel's modules."""
        return [device for device in self._devices if device.name not in OURS]

    @property
    def _devices(self) -> list[VirtioDevice]:
        """All but slots without anything in them."""
        if self._equipment is None:
            return []
        from umlfs.virtio.disk_slot import DiskSlot

        free = [*self.slots.free, *self.disk_slots.free]
        found = [each.device for each in self._equipment.devices]
        return [each.disk if isinstance(each, DiskSlot) else each for each in found if each not in free]

    @property
    def mconsole(self) -> Path:
        """The kernel's own management console."""
        assert self.directory is not None
        parent = self.directory if self._own is None else Path(f"/proc/self/fd/{self._own}")
        return parent / self.directory.name / "mconsole"

    @property
    def replies(self) -> Path | None:
        """Where sockets for its answers must lie, if not anywhere."""
        return None if self._own is None else self.directory

    @property
    def wants_reboot(self) -> bool:
        """Whether the kernel that has ended was told to start again (with `noreboot` it leaves that to us)."""
        return self._log.restarting

    @property
    def panicked(self) -> bool:
        """Whether the kernel that has ended did so because it panicked."""
        return self._log.panicked

    @property
    def lines_said(self) -> int:
        """How many lines the kernel has said."""
        return self._log.count

    @property
    def log(self) -> list[bytes]:
        """The last lines of the kernel's log."""
        return list(self._log.lines)

    # Booting ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        options = self.options
        async with contextlib.AsyncExitStack() as stack:
            kernel = find_kernel(options.kernel)
            memory = memory_directory(needed_at_least(options.memory))
            keeper = stack.enter_context(Keeper(memory=None if options.jail is Mode.OFF else memory))
            self.directory = directory = keeper.directory
            await stack.enter_async_context(self.networking.attached(keeper))
            self._equipment = equipment = await self._equip(stack, kernel, directory)
            self.networking.equip(equipment, kernel)
            listeners = [stack.enter_context(unix_listener(device.socket)) for device in equipment.devices]
            watch = stack.enter_context(ending.watching())
            heard = options.on_notification and stack.enter_context(_notifications(directory / NOTIFY))
            # Tasks end before what they work on is closed.
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            for device, listener in zip(equipment.devices, listeners, strict=True):
                nursery.start_soon(vhost_user.serve, device.device, listener, lambda: self.pid)
            await trio.to_thread.run_sync(write_archive, directory / ARCHIVE, kernel, equipment, options)
            if heard and options.on_notification:
                nursery.start_soon(self._tell, heard, options.on_notification)
                equipment.arguments.append(f"mconsole=notify:{directory / NOTIFY}")
            self._start_kernel(stack, nursery, kernel, keeper, equipment, memory)
            if heard:
                heard.sender = self._uid
            if self.has_agent and self.options.program is None:
                locks = LockSignals(self._control, [each.lock_waits for each in equipment.shared], self._run_script)
                nursery.start_soon(locks.run)
            if equipment.announcing is not None:
                nursery.start_soon(equipment.announcing.run)
            nursery.start_soon(self._hang_up_at_the_end, watch, self.mconsole.parent)
            await self.networking.ready()  # the guest looks for them later
            await self._wait_until_ready()
            if self.has_agent:
                await self.networking.settled()
            yield
            if self._writes_disks(equipment) and self.has_agent and not self._ended.is_set():
                with trio.move_on_after(SETTLE_SECONDS):
                    await self._control.settle()

    def _writes_disks(self, equipment: Equipment) -> bool:
        """Whether the guest may have written to a disk."""
        has_disks = equipment.ubds or equipment.disk_slots
        return equipment.writes_disks or bool(has_disks and self.disk_slots.writes)

    async def _equip(self, stack: contextlib.AsyncExitStack, kernel: Kernel, directory: Path) -> Equipment:
        """Open every source."""
        equipment = await equip(stack, kernel, self.options, directory, self._control)
        if equipment.slots:
            stack.push_async_callback(self._close_slots)
        return equipment

    async def _close_slots(self) -> None:
        await self.slots.close()

    def _start_kernel(
        self,
        stack: contextlib.AsyncExitStack,
        nursery: trio.Nursery,
        kernel: Kernel,
        keeper: Keeper,
        equipment: Equipment,
        memory: Path,
    ) -> None:
        tuned = tuning(kernel, raid=equipment.raid)
        lines = self._make_terminals(stack)
        command = kernel_command(kernel, self.options, equipment, tuned, lines)
        grants = equipment.grants
        grants.descriptors += [*self.options.descriptors, *self.networking.descriptors, *lines.values()]
        process = self._spawn(stack, nursery, kernel, keeper, grants, command, memory)
        self.pid = process.pid
        if self.options.on_started is not None:
            self.options.on_started(process.pid)
        # The kernel goes before its devices do.
        stack.callback(keeper.close)
        assert process.stderr is not None
        pipe = trio.lowlevel.FdStream(os.dup(process.stderr.fileno()))
        process.stderr.close()
        nursery.start_soon(self._log.keep, pipe)
        if self.options.execution.processors == 1:
            choice = ProcessorChoice(process.pid)
            stack.callback(choice.leave)
            nursery.start_soon(choice.keep)
        nursery.start_soon(self._watch, keeper, process, Toll.of(process.pid))
        if tuned.lpj is None:
            nursery.start_soon(self._learn, kernel)

    def _spawn(
        self,
        stack: contextlib.AsyncExitStack,
        nursery: trio.Nursery,
        kernel: Kernel,
        keeper: Keeper,
        grants: Grants,
        command: Sequence[str],
        memory: Path,
    ) -> KernelProcess:
        """Start the kernel: in a jail, unless there is to be none."""
        started = start_kernel(stack, kernel, keeper, self.options, grants, command, memory)
        self.layers, self._uid, self._own = started.layers, started.uid, started.own
        if started.refusals >= 0:
            from runtime.jail import refusals  # loaded while the kernel starts

            nursery.start_soon(refusals.hear, started.refusals, self._note_refused)
        return started.process

    def _note_refused(self, name: str) -> None:
        """The kernel process made a system call that its jail refuses. In a strict one that is its end."""
        if name in self.layers.refused:
            return
        self.layers = self.layers.with_refused(name)
        self._log.feed(b"jail: the kernel process was refused the system call %s\n" % name.encode())
        if self.options.jail is Mode.STRICT:
            self.kill()

    @property
    def ending(self) -> str:
        """How the kernel process ended, for a person."""
        status, refused = self.returncode or 0, self.layers.refused
        if refused and status in (-signal.SIGKILL, -signal.SIGSYS):
            return f"the jail ended the kernel process, which made the system call {refused[-1]}"
        if self._killed_for:
            return f"this host's kernel killed it: {self._killed_for}"
        return f"the kernel died of signal {-status}" if status < 0 else f"the kernel's exit status was {status}"

    def _make_terminals(self, stack: contextlib.AsyncExitStack) -> dict[int, int]:
        """What the kernel inherits of all its terminals, by their lines."""
        wanted = (*([TERMINAL] if self.options.terminal else []), *self.options.terminals)
        if not wanted:
            return {}
        from runtime.tty.ptys import open_ends

        for line in wanted:
            self.terminals[line] = ends = open_ends()
            stack.callback(os.close, ends.near)
            stack.callback(os.close, ends.far)
        return {line: ends.far for line, ends in self.terminals.items()}

    async def _run_script(self, script: str) -> None:
        """Have a guest that stays up run a script beside all else."""
        if self.options.init is not None and not self._ended.is_set() and self._control.ready.is_set():
            with contextlib.suppress(UmlError):
                await run_script(self, script)

    async def _reconnect(self) -> None:
        """Have the guest connect its cards again."""
        if self._ended.is_set() or not self.has_agent or not self._control.ready.is_set():
            return
        if self.options.init is None:
            self._control.signal_all("NETWORK")
            return
        await self._run_script(f". {guest.HERE}/reconnect.sh")

    async def _learn(self, kernel: Kernel) -> None:
        """Keep what this boot measured for the next one."""
        await self._control.ready.wait()
        remember_lpj(kernel, b"\n".join(self._log.lines))

    async def _watch(self, keeper: Keeper, process: KernelProcess, toll: Toll | None) -> None:
        status = await keeper.wait(process)
        if toll is not None and status == -signal.SIGKILL:
            self._killed_for = toll.reason()
        with trio.move_on_after(LOG_SECONDS):
            await self._log.complete.wait()
        # Its guest has shut down in order: that a kernel does not end by itself then is its own fault.
        self.returncode = 0 if self._cut_off else status
        self._ended.set()
        self._control.stop(self._end_of_guest(self.returncode))

    def _end_of_guest(self, status: int) -> UmlError:
        """What to say to whoever still waited for something of the guest."""
        if status == 0 and not self.panicked:
            how = "restarted, which is its end" if self.wants_reboot else "ended by itself"
            return UmlError(f"the guest {how}", "what was still running in it has no exit status")
        return self._log.failure(f"the guest ended by itself ({self.ending})")

    async def _tell(self, notifications: Notifications, hear: Callable[[Notification], None]) -> None:
        from runtime.mconsole.wire import NoticeKind

        async for notification in notifications:
            if notification.kind is NoticeKind.BOOT:
                self._booted.set()
            hear(notification)

    async def _hang_up_at_the_end(self, watch: Watch | None, umid: Path) -> None:
        await ending.umid_removed(watch, umid)
        self._control.hang_up()
        if self.pid is not None:
            await ending.stuck(self.pid)
            self._cut_off = self.returncode is None
            self.kill()

    async def _wait_until_ready(self) -> None:
        """Return when the agent asks for its first job, or without one when the kernel answers. UmlError if that never
        comes."""
        up = self._control.ready if self.has_agent else self._booted
        with trio.move_on_after(self.options.boot_seconds):
            async with trio.open_nursery() as nursery:
                for event in (up, self._control.reported, self._ended):
                    nursery.start_soon(_cancel_after, event, nursery.cancel_scope)
        if up.is_set():
            return
        if self._control.reported.is_set():
            raise UmlError(guest.explain(self._control.report.decode(errors="surrogateescape")))
        if self._ended.is_set():
            why = f" ({self.ending})" if self.layers.refused else ""
            raise self._log.failure(f"the kernel ended before its guest was up{why}")
        raise self._log.failure(f"the guest did not come up within {self.options.boot_seconds:g} s")


def _notifications(path: Path) -> contextlib.AbstractContextManager[Notifications]:
    from runtime.mconsole import notify

    return notify.listening(path)


def _working_directory() -> str:
    """The caller's own; / if it was removed meanwhile."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
