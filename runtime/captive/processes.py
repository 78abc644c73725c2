"""Things outside as processes of a guest."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from runtime.captive.streams import CommandInput, CommandOutput
from runtime.host.compiled import compiled, install
from runtime.machine.control import Job
from runtime.machine.machine import Machine
from umlfs.errors import UmlError, UsageError

log = logging.getLogger(__name__)

SOURCES: Final = [Path(__file__).with_name("stand_in.c")]
NAME: Final = "stand_in"
WHAT: Final = "the guest's stand-in for a process"
START_SECONDS: Final = 30.0
LINE_MAX: Final = 64
HOOK_SECONDS: Final = 30.0
"""How long a hook may take."""
STOP, CONT = 19, 18

Hook = Callable[[int], Awaitable[object]]


def install_stand_in() -> None:
    """Compile the stand-in for all users of this installation. UmlError, OSError."""
    install(NAME, SOURCES, WHAT)


class VirtualProcess:
    """A process of the guest that stands for something outside."""

    def __init__(self, pid: int, stdin: CommandInput, job: Job) -> None:
        self.pid = pid
        """In the guest."""
        self._stdin = stdin
        self._job = job

    @property
    def over(self) -> bool:
        """Whether it is gone."""
        return self._job.over

    async def exit(self, status: int = 0) -> None:
        """What it stands for has ended: so does the process."""
        if not self.over:
            try:
                await self._stdin.send_all(b"%d\n" % (status & 0xFF))
            except trio.BrokenResourceError:
                return
            await self._job.ended()


class Processes:
    """Those of one guest."""

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self._machine = machine
        self._nursery = nursery

    async def add(
        self,
        name: str,
        *,
        on_signal: Hook | None = None,
        on_nice: Hook | None = None,
        on_exit: Hook | None = None,
        owner: int = 0,
    ) -> VirtualProcess:
        """A process called `name`, up to 15 bytes of which `ps` shows.

        `on_signal` hears the number of each signal that it gets, STOP and CONT among them; nothing follows from one by
        itself, but for KILL, after which `on_exit` hears 9 and the process is gone. `on_nice` hears a new niceness. A
        hook that raises or takes long is logged; the guest goes on. `owner` is the number of the
        guest's user that has it. UmlError if the guest cannot have it.
        """
        if not name or "\0" in name:
            raise UsageError(f"{name!r}: not the name of a process", "give it one")
        program = await trio.to_thread.run_sync(compiled, NAME, SOURCES, WHAT)
        stdin, stdout = CommandInput(), CommandOutput()
        job = self._machine.start_program(program, stdin=stdin, stdout=stdout, arguments=[name, str(owner)])
        lines = _Lines(stdout)
        self._nursery.start_soon(self._attend, job, stdin, stdout)
        with trio.move_on_after(START_SECONDS):
            word, pid = await lines.next()
            if word == "pid":
                hooks = {"signal": on_signal, "nice": on_nice, "gone": on_exit}
                self._nursery.start_soon(_hear, name, lines, hooks)
                return VirtualProcess(pid, stdin, job)
        raise UmlError(f"{name}: the guest cannot have such a process", "see its log")

    async def _attend(self, job: Job, stdin: CommandInput, stdout: CommandOutput) -> None:
        await job.ended()
        stdin.hang_up()
        stdout.finish()
        self._machine.retire(job)


class _Lines:
    """What the stand-in says: a word and a number. A hostile guest may say anything."""

    def __init__(self, stream: CommandOutput) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> tuple[str, int]:
        """Empty at the end, and for what makes no sense."""
        while b"\n" not in self._rest:
            data = await self._stream.receive_some(LINE_MAX)
            if not data or len(self._rest) > LINE_MAX:
                return "", 0
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        word, _, number = line.decode(errors="replace").partition(" ")
        digits = number.removeprefix("-")
        return word, int(number) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0


async def _hear(name: str, lines: _Lines, hooks: dict[str, Hook | None]) -> None:
    while True:
        word, number = await lines.next()
        if word in ("stopped", "continued"):
            word, number = "signal", STOP if word == "stopped" else CONT
        if word not in hooks:
            return
        hook = hooks[word]
        if hook is not None:
            await _call(name, hook, number)


async def _call(name: str, hook: Hook, number: int) -> None:
    try:
        with trio.move_on_after(HOOK_SECONDS) as limit:
            await hook(number)
    except Exception:
        log.exception("%s: a hook failed", name)
    else:
        if limit.cancelled_caught:
            log.warning("%s: a hook did not come back within %g s", name, HOOK_SECONDS)
