"""Things of this host as processes of a guest: NAME=pid:N, unit:NAME, machine:UMID, exec:COMMAND."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import trio

from runtime.captive.processes import CONT, STOP, Hook, Processes, VirtualProcess
from runtime.machine.machine import Machine
from runtime.machines import client, directory
from runtime.mconsole.client import Client
from umlfs.errors import UmlError, UsageError

log = logging.getLogger(__name__)

KINDS: Final = ("unit", "pid", "machine", "exec")
HALT_SECONDS: Final = 90.0
SYSTEMCTL_SECONDS: Final = 20.0


class Word(NamedTuple):
    """What `--process` says."""

    name: str
    kind: str
    value: str


def parse(text: str) -> Word:
    """UsageError for what names nothing."""
    name, equals, rest = text.partition("=")
    kind, colon, value = rest.partition(":")
    if not (name and equals and colon and value) or kind not in KINDS:
        raise UsageError(
            f"--process {text}: not NAME=KIND:WHAT",
            "write db=unit:postgresql, it=pid:123, web=machine:web, or job=exec:…",
        )
    if kind == "pid" and not (value.isascii() and value.isdigit() and 0 < int(value) < 1 << 22):
        raise UsageError(f"--process {text}: '{value}' is no process", "give its number")
    return Word(name, kind, value)


class Outside:
    """A process of this host, by a descriptor: its number may be another's later."""

    def __init__(self, word: Word, pid: int) -> None:
        """UmlError if it has ended."""
        self._what = f"{word.kind}:{word.value}"
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
            self.owner = Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            raise UmlError(f"--process {word.name}={self._what}: no such process runs", "'ps' lists them") from None

    async def signal(self, number: int) -> None:
        """Have it get a signal. OSError, UmlError."""
        signal.pidfd_send_signal(self._fd, number)

    async def nice(self, value: int) -> None:
        """Give it another priority. OSError."""
        os.setpriority(os.PRIO_PROCESS, self.pid, value)

    async def ended(self) -> int:
        """Wait for its end; its exit status, 0 where only its parent knows."""
        await trio.lowlevel.wait_readable(self._fd)
        return 0

    def close(self) -> None:
        """It is not followed any more."""
        os.close(self._fd)


class Command(Outside):
    """A command that was started for it, with a session of its own, which ends with it."""

    def __init__(self, word: Word) -> None:
        self._process = subprocess.Popen(["sh", "-c", word.value], stdin=subprocess.DEVNULL, start_new_session=True)
        super().__init__(word, self._process.pid)

    async def signal(self, number: int) -> None:
        os.killpg(self.pid, number)

    async def ended(self) -> int:
        await super().ended()
        status = self._process.wait()
        return 128 - status if status < 0 else status

    def close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        super().close()


class GuestMachine(Outside):
    """A machine of `uml boot`: TERM halts it, STOP pauses it."""

    def __init__(self, word: Word) -> None:
        self._path = client.find(word.value)
        super().__init__(word, directory.read_pid(self._path) or 0)

    async def signal(self, number: int) -> None:
        if number in (STOP, CONT):
            reply = await Client(self._path / directory.MCONSOLE).request("stop" if number == STOP else "go")
            if reply.err:
                raise UmlError(reply.text)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            seconds = None if number == signal.SIGKILL else HALT_SECONDS
            await client.ask(self._path, {"do": "power", "action": "halt", "seconds": seconds})


class Unit(Outside):
    """A service of systemd's: TERM stops it, other signals go to all of its processes."""

    def __init__(self, word: Word, pid: int) -> None:
        super().__init__(word, pid)
        self._unit = word.value

    async def signal(self, number: int) -> None:
        words = ["stop"] if number == signal.SIGTERM else ["kill", f"--signal={number}"]
        await systemctl([*words, "--", self._unit])

    async def ended(self) -> int:
        await super().ended()
        status = (await systemctl(["show", "--property=ExecMainStatus", "--value", "--", self._unit])).strip()
        return int(status) & 0xFF if status.isdigit() else 0


async def systemctl(words: Sequence[str]) -> str:
    """What it says. UmlError."""
    try:
        with trio.fail_after(SYSTEMCTL_SECONDS):
            done = await trio.run_process(
                ["systemctl", *words], capture_stdout=True, capture_stderr=True, check=False, start_new_session=True
            )
    except FileNotFoundError:
        raise UmlError("--process: this host has no systemd", "name it with pid: instead") from None
    except trio.TooSlowError:
        raise UmlError(f"systemctl {words[0]} took longer than {SYSTEMCTL_SECONDS:g} s") from None
    if done.returncode:
        raise UmlError(f"systemctl: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


async def found(word: Word) -> Outside:
    """What the word means. UmlError if it is not there."""
    if word.kind == "exec":
        return Command(word)
    if word.kind == "machine":
        return GuestMachine(word)
    if word.kind == "unit":
        text = (await systemctl(["show", "--property=MainPID", "--value", "--", word.value])).strip()
        if not text.isdigit() or text == "0":
            raise UmlError(f"--process {word.name}=unit:{word.value}: it does not run", f"systemctl start {word.value}")
        return Unit(word, int(text))
    return Outside(word, int(word.value))


@asynccontextmanager
async def shown(machine: Machine, words: Sequence[Word]) -> AsyncIterator[None]:
    """The guest has them as processes meanwhile. UmlError."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        processes = Processes(machine, nursery)
        for word in words:
            it = await found(word)
            stack.callback(it.close)
            nursery.start_soon(_follow, await _add(processes, word, it), it)
        yield


async def _add(processes: Processes, word: Word, it: Outside) -> VirtualProcess:
    async def obey(number: int) -> None:
        await _tried(word, it.signal, number)

    async def nice(value: int) -> None:
        await _tried(word, it.nice, value)

    async def gone(number: int) -> None:
        if number:
            await _tried(word, it.signal, number)

    return await processes.add(word.name, on_signal=obey, on_nice=nice, on_exit=gone, owner=it.owner)


async def _tried(word: Word, act: Hook, value: int) -> None:
    try:
        await act(value)
    except ProcessLookupError:
        log.debug("%s has ended", word.name)
    except OSError as error:
        log.warning("%s: %s", word.name, error.strerror)
    except UmlError as error:
        log.warning("%s: %s", word.name, error)


async def _follow(process: VirtualProcess, it: Outside) -> None:
    await process.exit(await it.ended())
