"""Commands in a running machine, for clients of its control socket: the machine's side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import trio

from runtime.appliance.program import program
from runtime.machine.control import Job
from runtime.machine.machine import Machine
from runtime.machines.channel import DESCRIPTORS_MAX, ControlChannel
from runtime.machines.control_wire import Message, ProtocolError, text, words
from runtime.tty.streams import Descriptor, are_same, is_null
from umlfs.errors import UmlError

SIGNALS: Final = frozenset({"INT", "TERM", "QUIT", "HUP", "KILL", "USR1", "USR2", "CONT", "STOP", "TSTP"})
PIECE: Final = 64 << 10


class Execution:
    """What runs commands in one boot of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._free = sorted(machine.terminals)
        self._lines = len(self._free)

    async def run(self, channel: ControlChannel, request: Message) -> Message:
        """Run what `request` asks for, for as long as the client is there; what to tell it in the end. UmlError."""
        if not self._machine.has_agent:
            raise self._machine.no_agent()
        if request.get("terminal") is True:
            return await self._on_terminal(channel, request)
        with _streams(channel) as (stdin, stdout, stderr):
            job = self._start(request, stdin=stdin, stdout=stdout, stderr=stderr)
            await channel.send({"started": job.number})
            return await self._attend(channel, job)

    async def look_inside(self, channel: ControlChannel, request: Message) -> Message:
        """Have the filer serve the guest's root to the client, whose first two streams are its requests and answers
        (see `runtime/appliance/filer.c`), for as long as those are open. UmlError."""
        if not self._machine.has_agent:
            raise self._machine.no_agent()
        filer = await trio.to_thread.run_sync(program)
        with _streams(channel) as (stdin, stdout, _):
            if stdin is None or stdout is None:
                raise ProtocolError("no streams for requests and answers")
            job = self._machine.start_program(filer, stdin=stdin, stdout=stdout)
            await channel.send({"started": job.number})
            return await self._attend(channel, job)

    async def _on_terminal(self, channel: ControlChannel, request: Message) -> Message:
        """The client gets both ends of a line, and passes on itself between it and its own terminal."""
        with self._line() as number:
            line = self._machine.terminals[number]
            _drain(line.near)
            job = self._start(request, terminal=number)
            await channel.send({"started": job.number}, line)
            return await self._attend(channel, job)

    @contextlib.contextmanager
    def _line(self) -> Iterator[int]:
        """A line that nobody else has. UmlError if there is none left."""
        if not self._free:
            why = f"all {self._lines} are in use" if self._lines else "con8 to con15 are taken by others"
            raise UmlError(f"no terminal left in the machine: {why}", "leave out -t, or end another command")
        number = self._free.pop(0)
        try:
            yield number
        finally:
            self._free.append(number)

    def _start(
        self,
        request: Message,
        *,
        stdin: Descriptor | None = None,
        stdout: Descriptor | None = None,
        stderr: Descriptor | None = None,
        terminal: int | None = None,
    ) -> Job:
        environment = request.get("environment", {})
        if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
            raise ProtocolError("'environment' is no table of texts")
        return self._machine.start(
            words(request, "command"),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            directory=text(request, "directory"),
            environment=environment,
            user=text(request, "user"),
            terminal=terminal,
        )

    async def _attend(self, channel: ControlChannel, job: Job) -> Message:
        """Wait for the job's end; pass on signals. A client that leaves takes its command with it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pass_on, channel, job)
                status = await job.wait()
                nursery.cancel_scope.cancel()
            return {"exit": status}
        finally:
            if not job.over:
                job.signal("HUP")
            self._machine.retire(job)


async def _pass_on(channel: ControlChannel, job: Job) -> None:
    """The client's signals go to the command; SIGHUP when it leaves."""
    while (message := await channel.receive()) is not None:
        name = text(message, "signal")
        if name in SIGNALS:
            job.signal(name)
    job.signal("HUP")


@contextlib.contextmanager
def _streams(channel: ControlChannel) -> Iterator[tuple[Descriptor | None, Descriptor | None, Descriptor | None]]:
    """The client's standard streams; None for /dev/null, the same one twice if output and errors go to one place."""
    if len(channel.descriptors) != DESCRIPTORS_MAX:
        raise ProtocolError("a command without its three streams")
    numbers, channel.descriptors = channel.descriptors, []
    with contextlib.ExitStack() as stack:
        for number in numbers:
            stack.callback(os.close, number)

        def opened(number: int, write: bool) -> Descriptor | None:
            if is_null(number):
                return None
            return stack.enter_context(contextlib.closing(Descriptor(number, write=write)))

        stdin, stdout = opened(numbers[0], False), opened(numbers[1], True)
        yield stdin, stdout, stdout if are_same(numbers[1], numbers[2]) else opened(numbers[2], True)


def _drain(line: int) -> None:
    """Drop what the one who had the line before did not read."""
    with contextlib.suppress(BlockingIOError, OSError):
        while os.read(line, PIECE):
            pass
