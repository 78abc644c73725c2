"""A machine inside a program."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, TypedDict

import trio

from runtime import guest
from runtime.captive import accounts
from runtime.captive.accounts import Account
from runtime.captive.events import Event, EventKind
from runtime.captive.files import Files
from runtime.captive.limits import Limits
from runtime.captive.mounts import Mount, Tree, mounts_of, source_of
from runtime.captive.process import Process
from runtime.captive.processes import Processes
from runtime.captive.roots import claimed
from runtime.captive.streams import CommandInput, CommandOutput
from runtime.jail import layers
from runtime.jail.layers import Mode
from runtime.machine.machine import Machine, Options
from runtime.machine.script import BUSYBOX, run_script
from runtime.machines import snapshot
from runtime.machines.pulse import Pulse
from runtime.mconsole.client import Client
from runtime.mconsole.wire import Notification
from runtime.network import parsing
from runtime.network.contract import Network
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector, Literal
from umlfs import ubd
from umlfs.errors import UmlError, sole

EVENTS_MAX: Final = 256
"""Events that wait for the program. The oldest are dropped."""
SYNC_SECONDS: Final = 60.0


class StartOptions(TypedDict, total=False):
    """How a command is started."""

    directory: str | None
    """`/` by default."""
    environment: Mapping[str, str] | None
    """On top of PATH, HOME and USER."""


class RunOptions(StartOptions, total=False):
    """How a command is run to its end."""

    input: bytes
    timeout: float | None
    """In seconds; then it is ended."""
    check: bool
    """A status other than 0 is an error."""


class User:
    """Runs commands in a guest as one of its users."""

    def __init__(self, captive: Captive, name: str | None) -> None:
        self._captive = captive
        self.name = name

    async def run(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end; its output is gathered, up to `Limits.output` bytes of each stream.

        It starts in `directory`, / by default, with PATH, HOME, USER and `environment`. Cancelling ends the command.
        After `timeout` seconds it is ended: `subprocess.TimeoutExpired`. With `check` a status other than 0 is a
        `subprocess.CalledProcessError`. UmlError if it cannot be run, or if the guest ends.
        """
        limit = self._captive.limits.output
        out, err = Collector(limit), Collector(limit)
        machine = self._captive.machine_for(command)
        job = machine.start(
            command,
            stdin=Literal(input),
            stdout=out,
            stderr=err,
            directory=directory or "/",
            environment={"PATH": DEFAULT_PATH, **(environment or {})},
            user=self.name,
        )
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
                status = await job.wait()
        finally:
            if not job.over:
                job.signal("KILL")
                with trio.move_on_after(1, shield=True):
                    await job.ended()
            machine.retire(job)
        if scope.cancelled_caught:
            raise subprocess.TimeoutExpired(list(command), timeout or 0, bytes(out.data), bytes(err.data))
        done = subprocess.CompletedProcess(list(command), status, bytes(out.data), bytes(err.data))
        if check:
            done.check_returncode()
        return done

    def start(
        self,
        command: Sequence[str],
        *,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command with its three streams as trio streams. Use it as a context (`async with`), or it runs for
        as long as it likes and its guest lives."""
        return self._captive.begin(self.name, command, directory or "/", environment or {})


class Captive(User):
    """A guest that runs; `captive` makes one. As a user it is the guest's root."""

    def __init__(self, machine: Machine, limits: Limits, nursery: trio.Nursery) -> None:
        super().__init__(self, None)
        self.limits = limits
        self.files = Files(machine, nursery)
        self.processes = Processes(machine, nursery)
        self._machine = machine
        self._nursery = nursery
        self._owner = os.getpid()
        self._said: trio.MemorySendChannel[Event]
        self._said, self._heard = trio.open_memory_channel[Event](EVENTS_MAX)
        self._pausing = trio.Lock()

    def as_user(self, user: str | Account) -> User:
        """Commands as another user of the guest, by name or number."""
        return User(self, user.name if isinstance(user, Account) else user)

    async def login(self, name: str, password: str | bytes) -> Account | None:
        """The guest's user `name` if the password is right and neither has expired, else None: the guest's PAM or
        shadow says so. UmlError if the guest can tell nothing."""

        async def run(command: Sequence[str], secret: bytes) -> tuple[int, bytes]:
            done = await self.run(command, input=secret)
            return done.returncode, done.stdout

        return await accounts.check(run, BUSYBOX, name, password)

    @property
    def events(self) -> trio.MemoryReceiveChannel[Event]:
        """What happens to the guest, until it has ended: `async for event in guest.events`. One reader."""
        return self._heard

    async def ended(self) -> str:
        """Wait until the guest has ended by itself; how."""
        await self._machine.ended()
        return self._machine.ending

    @property
    def alive(self) -> bool:
        """Whether the guest's kernel runs."""
        return self._machine.returncode is None

    @property
    def log(self) -> list[bytes]:
        """The last lines of the kernel's log."""
        return self._machine.log

    @property
    def pid(self) -> int | None:
        """The kernel process, for `ps` and the like."""
        return self._machine.pid

    def kill(self) -> None:
        """End the guest at once: what it has not written yet is lost."""
        self._machine.kill()

    async def snapshot(self, directory: str = "") -> list[str]:
        """Copy the COW files that the guest writes to, all of one moment, into `directory` or to where each is; the
        paths of the copies, which are durable. UmlError if it has none, OSError."""
        async with self._pausing:
            return await snapshot.take(self._machine.stores, directory, self._paused)

    @contextlib.asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        await run_script(self._machine, "sync", seconds=SYNC_SECONDS)
        kernel = Client(self._machine.mconsole, self._machine.replies)
        try:
            reply = await kernel.request("stop")
            if reply.err:
                raise UmlError(reply.text)
            yield
        finally:
            with trio.CancelScope(shield=True):
                await kernel.request("go")

    # For those that run commands --------------------------------------------------------------

    def machine_for(self, command: Sequence[str]) -> Machine:
        """The machine, for a command. TypeError for one that is no list of words; UmlError in a process that was
        forked: the guest is its parent's."""
        if isinstance(command, str | bytes) or not command:
            raise TypeError(f"a command is a list of words, not {command!r}")
        if os.getpid() != self._owner:
            raise UmlError("the guest belongs to the process that this one was forked from", "make one of its own")
        return self._machine

    def begin(
        self, user: str | None, command: Sequence[str], directory: str, environment: Mapping[str, str]
    ) -> Process:
        machine = self.machine_for(command)
        stdin, stdout, stderr = CommandInput(), CommandOutput(), CommandOutput()
        job = machine.start(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            directory=directory,
            environment={"PATH": DEFAULT_PATH, **environment},
            user=user,
        )
        process = Process(machine, job, stdin, stdout, stderr)
        self._nursery.start_soon(process.attend)
        return process

    async def run_program(self, program: bytes, stdin: CommandInput, arguments: Sequence[str]) -> None:
        """Run an executable of this host's, as `Machine.start_program` says, until it ends. What it prints is lost."""
        stdout = CommandOutput()
        job = self.machine_for(arguments).start_program(program, stdin=stdin, stdout=stdout, arguments=arguments)
        try:
            await job.ended()
        finally:
            stdin.hang_up()
            stdout.finish()
            self._machine.retire(job)

    def tell(self, kind: str, text: str) -> None:
        """Have the program hear of something."""
        if kind not in set(EventKind):
            return
        event = Event(EventKind(kind), text)
        try:
            self._said.send_nowait(event)
        except trio.WouldBlock:
            with contextlib.suppress(trio.WouldBlock):
                self._heard.receive_nowait()
                self._said.send_nowait(event)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def watch(self) -> None:
        """Tell of the kernel's end, and when it does not answer any more."""
        pulse = Pulse(
            Client(self._machine.mconsole, self._machine.replies).request,
            seconds=self.limits.hang_seconds,
            asleep=self._pausing.locked,
            tell=self.tell,
        )
        async with pulse.felt():
            await self._machine.ended()
            await self._machine.last_words()
        self.tell(EventKind.EXIT, self._machine.ending)
        self._said.close()


def _networks(network: str | Network | Sequence[str | Network] | None, publish: Sequence[str]) -> list[Network]:
    each: Sequence[str | Network] = (
        (["user"] if publish else [])
        if network is None
        else [network]
        if isinstance(network, str) or not isinstance(network, Sequence)
        else network
    )
    found = [parsing.parse(one) if isinstance(one, str) else one for one in each]
    return parsing.with_ports([one for one in found if one is not None], publish)


@contextlib.asynccontextmanager
async def captive(
    *,
    root: Tree = "hostfs:/",
    writable: bool = False,
    mounts: Mapping[str, Tree | Mount] | None = None,
    disks: Sequence[str] = (),
    network: str | Network | Sequence[str | Network] | None = None,
    publish: Sequence[str] = (),
    limits: Limits | None = None,
    name: str = "captive",
    kernel: str | None = None,
    jail: Mode = layers.DEFAULT,
) -> AsyncIterator[Captive]:
    """A guest, from the entry of the context to its exit, in a jail.

    `root` is the tree at /; what the guest changes there goes to its memory, and with `writable` through to the tree.
    `mounts` are trees of this process or sources, by their places. `disks` are words such as `ubd0=COW,BACKING`,
    `network` words such as `user`, or networks.
    `publish` has ports of this host lead to the guest, as `--publish` says.
    However the context ends, or the program, nothing of it is left.

    Entering boots, and returns when the guest takes commands. UmlError if it cannot, UsageError for arguments that
    mean nothing. A guest that ends by itself is an event, and an UmlError for whoever then asks for something.
    """
    bounds = limits or Limits()
    held: list[Captive] = []
    early: list[Notification] = []

    def hear(notification: Notification) -> None:
        held[0].tell(notification.kind, notification.text) if held else early.append(notification)

    options = Options(
        root=source_of(root, "/", bounds.time_limit),
        writable=writable,
        mounts=mounts_of(mounts or {}, bounds.time_limit),
        ubds=[ubd.parse(word) for word in disks],
        networks=_networks(network, publish),
        memory=bounds.memory,
        boot_seconds=bounds.boot_seconds,
        kernel=kernel,
        jail=jail,
        name=name,
        init=guest.Init(program=""),
        on_notification=hear,
        on_network=lambda line: held[0].tell(EventKind.NETWORK, line) if held else None,
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            if writable:
                stack.enter_context(claimed(root))
            machine = await stack.enter_async_context(Machine(options))
            nursery = await stack.enter_async_context(trio.open_nursery())
            it = Captive(machine, bounds, nursery)
            held.append(it)
            for notification in early:
                it.tell(notification.kind, notification.text)
            nursery.start_soon(it.watch)
            try:
                yield it
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise sole(group) from None
