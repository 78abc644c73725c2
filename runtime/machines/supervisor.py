"""The one who looks after a machine: from its directory to its end, through every restart of its guest."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import string
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from runtime.consoles.lines import Consoles
from runtime.consoles.spec import BOOT_CONSOLE, LineKind
from runtime.jail.layers import OPEN
from runtime.machine.machine import Machine
from runtime.machines import directory as layout
from runtime.machines import ended, service, statistics
from runtime.machines.channel import ControlChannel
from runtime.machines.common_log import CommonLog
from runtime.machines.control_wire import Message, ProtocolError, text
from runtime.machines.description import Description, save
from runtime.machines.hooks import Hooks
from runtime.machines.machine_log import LogFile, logging_to
from runtime.machines.options import card_remarks, console_specs, is_native, machine_options, xterm
from runtime.machines.placement import Placement
from runtime.machines.power import ACTIONS, StuckError, shut_down
from runtime.machines.pulse import Pulse
from runtime.machines.requests import HELP, Requests
from runtime.mconsole import server as mconsole
from runtime.mconsole.client import Client
from runtime.mconsole.events import Publisher, publishing
from runtime.mconsole.wire import NoticeKind as Event
from runtime.mconsole.wire import Notification
from runtime.process.memory import remark
from umlfs.errors import UmlError

if TYPE_CHECKING:
    from runtime.machines.execution import Execution

GRACE_SECONDS: Final = 30.0
"""How long a guest may take to shut down when we are told to end."""
NOW_SECONDS: Final = 2.0
"""How long a kernel may take to answer, and to end, when it is to end at once."""
NAME_LETTERS: Final = string.ascii_lowercase + string.digits
NAME_LENGTH: Final = 6

Ready = Callable[[], None]


def named(description: Description) -> Description:
    """The description with a name: one like the kernel's, six characters, if it has none."""
    if description.umid:
        layout.check_umid(description.umid)
        return description
    return replace(description, umid="".join(random.choices(NAME_LETTERS, k=NAME_LENGTH)))


def root_of(description: Description) -> str:
    """Where the root of the machine is, for a person."""
    if description.root or not description.root_device:
        return description.root or (f"initrd {description.initrd}" if description.initrd else "hostfs:/")
    return f"/dev/{description.root_device}"


class Supervisor:
    """One machine. `run` is its whole life."""

    def __init__(self, description: Description, *, on_terminal: bool = False) -> None:
        """UsageError for a description that cannot be meant. `on_terminal`: its consoles may be this process's."""
        self.description = named(description)
        self.state = "booting"
        """`booting`, `running`, `stopped`, `ending` or `restarting`."""
        self._specs = console_specs(self.description, on_terminal=on_terminal)
        machine_options(self.description)
        self._card_remarks = card_remarks(self.description)
        self._placement = Placement.of(self.description)
        self._machine: Machine | None = None
        self._execution: Execution | None = None
        """What runs commands in this boot, once there was one."""
        self._pulse: Pulse | None = None
        self._since = time.time()
        self._boots = 0
        self._status: int | None = None
        """The kernel's exit status, once it has ended; 128 + N after signal N."""
        self._how = ended.BY_FORCE
        """Why the machine ended, if not well."""
        self._asked: str | None = None
        """`halt` or `reboot`, if the kernel was told to do that without a word of its own."""
        self._ending = False
        """No more boots."""
        self._events: Publisher | None = None
        self._lines: Consoles | None = None
        self._scope = trio.CancelScope()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the person should know of the description."""
        return (*self._specs.notes, *self._card_remarks, *filter(None, [remark(self.description.memory)]))

    async def run(self, ready: Ready) -> int:
        """Boot, call `ready` when the machine answers, and return the kernel's exit status when it ends.

        SIGTERM and SIGINT shut the guest down; a second one ends it at once. UmlError if the machine cannot be
        made, or if the guest panics: then its log stays in the machine's directory.
        """
        parent = layout.machines_directory(self.description.uml_dir)
        with layout.claimed(parent, self.description.umid) as directory:
            save(self.description, directory / layout.DESCRIPTION)
            log = LogFile(directory / layout.LOG)
            with self._remembered(directory), contextlib.closing(log), logging_to(log):
                return await self._live(directory, log, ready)

    @contextlib.contextmanager
    def _remembered(self, directory: layout.MachineDirectory) -> Iterator[None]:
        """Keeps the log, and how the machine ended, for `uml ps -a` and `uml logs`. Nothing is kept of one that never
        came up: whoever started it is told why."""
        try:
            yield
        finally:
            how = ended.Ended(
                self.description.umid,
                self._status,
                self._how,
                root_of(self.description),
                self._since,
                time.time(),
            )
            if self._boots:
                with contextlib.suppress(OSError):
                    ended.keep(directory.path, how)

    # One life ---------------------------------------------------------------------------------

    async def _live(self, directory: layout.MachineDirectory, log: LogFile, ready: Ready) -> int:
        status = 1
        async with contextlib.AsyncExitStack() as stack:
            self._lines = consoles = await stack.enter_async_context(self._consoles(directory))
            self._events = await stack.enter_async_context(publishing(directory / layout.EVENTS, self.description.umid))
            stack.enter_context(self._placement.applied(self.description.umid))
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            await nursery.start(self._obey_signals, nursery)
            nursery.start_soon(self._keep_log, consoles, log, stack.enter_context(self._common_log()))
            await nursery.start(consoles.sharing().serve, directory / layout.LINES)
            await nursery.start(service.serve, directory / layout.CONTROL, self._requests())
            with self._scope:
                status = await self._boot_again_and_again(directory, consoles, ready)
        return status

    def _consoles(self, directory: layout.MachineDirectory) -> Consoles:
        it = self.description
        return Consoles(
            self._specs,
            umid=it.umid,
            xterm=xterm(it),
            log_directory=Path(it.tty_log_dir).absolute() if it.tty_log_dir else None,
            directory=directory.path,
        )

    async def _boot_again_and_again(self, directory: layout.MachineDirectory, consoles: Consoles, ready: Ready) -> int:
        while True:
            machine = await self._boot(directory, consoles, ready)
            if not self._restarts(machine):
                return self._outcome(machine, directory)
            self.state = "restarting"
            self._tell(Event.REBOOT)

    async def _boot(self, directory: layout.MachineDirectory, consoles: Consoles, ready: Ready) -> Machine:
        """One boot, to the end of its kernel."""
        options = machine_options(self.description, arguments=consoles.arguments, served=list(consoles.ends))
        options = replace(
            options,
            descriptors=[*options.descriptors, *consoles.inherited],
            on_notification=self._hear(directory),
            on_network=lambda line: self._tell(Event.NETWORK, line),
        )
        self._asked = None
        with contextlib.closing(Hooks(self.description)) as self._hooks:
            # Before it boots: its console is heard from the first word on.
            self._machine = machine = Machine(options)
            async with machine:
                self._execution = None
                requests = Requests(self.description, machine, asked=self._note_asked, changed=self._note_state)
                public = directory / layout.MCONSOLE
                self._pulse = self._pulse_of(machine)
                served = mconsole.serving(public, machine.mconsole, requests.handlers(), HELP, machine.replies)
                async with served, self._pulse.felt():
                    self._boots += 1
                    self.state = "running"
                    ready()
                    await machine.ended()
                    if self._asked is None and machine.returncode == 0:
                        await machine.last_words()
        return machine

    def _pulse_of(self, machine: Machine) -> Pulse:
        return Pulse(
            Client(machine.mconsole, machine.replies).request,
            seconds=self.description.hang_seconds,
            asleep=lambda: self.state == "stopped",
            tell=self._tell,
        )

    def _restarts(self, machine: Machine) -> bool:
        wants = self._asked == "reboot" or (machine.returncode == 0 and machine.wants_reboot)
        return wants and self.description.reboot and not self._ending

    def _outcome(self, machine: Machine, directory: layout.MachineDirectory) -> int:
        """The exit status of a kernel that ended well. UmlError for one that did not."""
        status = machine.returncode or 0
        self._tell(Event.EXIT, f"the kernel's exit status was {status}")
        self._status = status if status >= 0 else 128 - status
        if status >= 0 or self._asked == "kill":
            self._how = "" if self._asked != "kill" else ended.BY_FORCE
            return max(status, 0)
        self._how = what = "the guest panicked" if machine.panicked else machine.ending
        error = machine.failure(what)
        log = ended.log_of(directory.path)
        raise UmlError(what, f"its log is in {log}, 'uml logs {directory.path.name}' shows it", details=error.details)

    # What it says -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _common_log(self) -> Iterator[CommonLog | None]:
        it = self.description
        if not it.common_log:
            yield None
            return
        with contextlib.closing(CommonLog(Path(it.common_log), it.umid)) as log:
            yield log

    async def _keep_log(self, consoles: Consoles, log: LogFile, common: CommonLog | None) -> None:
        with consoles.attach(BOOT_CONSOLE) as reader:
            while data := await reader.read():
                log.write(data)
                if common is not None:
                    common.write(data)
                if self._machine is not None:
                    self._machine.hear(data)

    def _hear(self, directory: layout.MachineDirectory) -> Callable[[Notification], None]:
        def hear(notification: Notification) -> None:
            if notification.kind is Event.BOOT:
                notification = notification._replace(text=str(directory / layout.MCONSOLE))
            self._tell(notification.kind, notification.text)

        return hear

    def _tell(self, kind: Event, text: str = "") -> None:
        """Tell followers, and do what is to be done then."""
        notification = Notification(kind, text)
        assert self._events is not None
        self._events.publish(notification)
        self._hooks.heard(notification)

    # What it is told --------------------------------------------------------------------------

    async def _obey_signals(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if self._ending or self.state != "running":
                    self._scope.cancel()
                    return
                self._ending = True
                nursery.start_soon(self._end_in_order)

    async def _end_in_order(self) -> None:
        self.state = "ending"
        machine = self._machine
        assert machine is not None
        with contextlib.suppress(UmlError):
            await shut_down(machine, "halt", GRACE_SECONDS)
            return
        self._scope.cancel()

    def _note_asked(self, action: str) -> None:
        self._asked = action

    def _note_state(self, state: str) -> None:
        self.state = state

    def _requests(self) -> dict[str, service.Handler]:
        return {
            "state": self._on_state,
            "exec": self._on_exec,
            "look": self._on_look,
            "power": self._on_power,
        }

    async def _on_state(self, channel: ControlChannel, request: Message) -> Message:
        it = self.description
        return {
            "umid": it.umid,
            "pid": os.getpid(),
            "kernel": self._machine.pid if self._machine else None,
            "state": "hung" if self._pulse is not None and self._pulse.hung else self.state,
            "root": root_of(it),
            "memory": it.memory,
            "since": self._since,
            "boots": self._boots,
            "devices": self._devices(),
            "consoles": [str(line) for line in self._specs.served() if line.kind in LineKind],
            "lines": {str(line): self._lines.describe(line) for line in self._lines.ends} if self._lines else {},
            "jail": (self._machine.layers if self._machine else OPEN).message(),
            "placement": asdict(self._placement),
            "statistics": statistics.messages(self._machine.stores if self._machine else ()),
        }

    def _devices(self) -> list[str]:
        """Disks and mounts: those that it is booted with, and once it runs those that there are."""
        it, machine = self.description, self._machine
        runs = machine is not None and self.state in ("running", "stopped", "ending")
        ubds = list(it.ubds)
        if machine is not None and runs and not is_native(it):
            ubds = [str(spec) for spec in machine.disk_slots.specs]
        mounts = [*it.mounts, *(map(str, machine.plugged) if machine is not None else [])]
        return [*(f"ubd {word}" for word in ubds), *(f"mount {word}" for word in mounts)]

    async def _on_exec(self, channel: ControlChannel, request: Message) -> Message:
        return await self._running().run(channel, request)

    async def _on_look(self, channel: ControlChannel, request: Message) -> Message:
        return await self._running().look_inside(channel, request)

    def _running(self) -> Execution:
        if self._machine is None or self.state not in ("running", "ending"):
            raise UmlError(f"the machine is {self.state}", "try again when it runs")
        if self._execution is None:
            from runtime.machines.execution import Execution  # the machine is there before it is loaded

            self._execution = Execution(self._machine)
        return self._execution

    async def _on_power(self, channel: ControlChannel, request: Message) -> Message:
        action = text(request, "action")
        if action not in ACTIONS:
            raise ProtocolError(f"unknown action {action!r}")
        machine = self._machine
        if machine is None or machine.returncode is not None:
            raise UmlError(f"the machine is {self.state}", "try again when it runs")
        seconds = request.get("seconds")
        if seconds is None:
            await self._now(machine, action)
        elif isinstance(seconds, int | float):
            await self._in_order(machine, action, seconds)
        return {"done": action}

    async def _in_order(self, machine: Machine, action: str, seconds: float) -> None:
        """Have the guest do it. One that does not is ended by force, and StuckError says so."""
        state, self.state = self.state, "ending"
        try:
            await shut_down(machine, action, seconds)
        except StuckError as error:
            await self._force(machine, action)
            raise StuckError(f"{error.what}: ended by force", "what it had not written is lost") from None
        finally:
            if machine.returncode is None:
                self.state = state

    async def _force(self, machine: Machine, action: str) -> None:
        self._asked = "kill" if action == "halt" else action
        machine.kill()
        await machine.ended()

    async def _now(self, machine: Machine, action: str) -> None:
        """End the kernel by its management console, or by force if it does not answer."""
        self._asked = action
        with trio.move_on_after(NOW_SECONDS):
            with contextlib.suppress(UmlError):
                await Client(machine.mconsole, machine.replies).request(action, NOW_SECONDS)
            await machine.ended()
            return
        await self._force(machine, action)
