"""Reaching a running machine: the client's side of its control socket."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from runtime.machines import directory
from runtime.machines.channel import ControlChannel
from runtime.machines.control_wire import Message, ProtocolError, raise_failure
from runtime.tty import terminal
from runtime.tty.caller import END_SECONDS, ENDING, PASSED_ON
from runtime.tty.ptys import Ends
from umlfs.errors import UmlError

LIST: Final = "'uml ps' lists those that run"
STATE_SECONDS: Final = 5.0
"""How long a machine may take to tell its state."""


def find(umid: str, parent: Path | None = None) -> Path:
    """The directory of the machine `umid`: a name, or the path of the directory or of a socket in it. UmlError if there
    is none that runs."""
    if "/" in umid:
        path = directory.machine_at(umid) or Path(umid)
    else:
        path = (parent or directory.machines_directory()) / directory.check_umid(umid)
    if not directory.is_locked(path):
        pid = directory.read_pid(path)
        if pid is not None and directory.is_kernel(pid, path.name):
            raise UmlError(f"{umid}: was not started by 'uml boot'", f"'uml mconsole {umid}' reaches its kernel")
        raise UmlError(f"{umid}: no such machine is running", LIST)
    return path


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[ControlChannel]:
    """A connection to the machine with the directory `path`. UmlError if it does not listen."""
    connection = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with ControlChannel(connection) as channel:
        try:
            await connection.connect(os.fspath(path / directory.CONTROL))
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise UmlError(f"{path.name}: the machine does not answer: {why}", "it may be starting or ending") from None
        yield channel


async def ask(path: Path, request: Mapping[str, object]) -> Message:
    """The machine's answer to a request. UmlError if it refuses, or ends meanwhile."""
    async with connected(path) as channel:
        try:
            await channel.send(request)
            return await answer_of(channel, path)
        except trio.BrokenResourceError:
            raise _gone(path) from None


async def state(path: Path) -> Message:
    """What the machine tells of itself. UmlError if it does not within `STATE_SECONDS`."""
    with trio.move_on_after(STATE_SECONDS):
        return await ask(path, {"do": "state"})
    raise UmlError(f"{path.name}: the machine does not answer within {STATE_SECONDS:g} s", LIST)


async def answer_of(channel: ControlChannel, path: Path) -> Message:
    """What the machine says next. UmlError if it refuses, or ends meanwhile."""
    try:
        answer = await channel.receive()
    except ProtocolError as error:
        raise UmlError(f"{path}: what listens there is no machine: {error}", LIST) from None
    if answer is None:
        raise _gone(path)
    raise_failure(answer)
    return answer


def _gone(path: Path) -> UmlError:
    return UmlError(f"{path.name}: the machine ended", f"'uml ps' lists those that run; {path}/log may say why")


class Run:
    """A command in a running machine that has the caller's own streams or terminal, and signals."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._killed: int | None = None
        self._scope = trio.CancelScope()

    async def run(
        self,
        command: Sequence[str],
        *,
        streams: Sequence[int] | None,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> int:
        """The exit status of `command`; 128 + N if a second signal N made us leave it.

        Its streams are the three descriptors `streams`; with None it gets the caller's terminal. UmlError if it
        cannot be run, or if the machine ends.
        """
        request = {
            "do": "exec",
            "command": list(command),
            "terminal": streams is None,
            "directory": directory,
            "environment": dict(environment or {}),
            "user": user,
        }
        status: int | None = None
        with self._scope, trio.open_signal_receiver(*PASSED_ON) as signals:
            async with connected(self._path) as channel, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, signals, channel, nursery)
                status = await self._follow(channel, request, streams)
                nursery.cancel_scope.cancel()
        if self._killed is not None:
            return 128 + self._killed
        assert status is not None
        return status

    async def _follow(self, channel: ControlChannel, request: Message, streams: Sequence[int] | None) -> int:
        try:
            await channel.send(request, streams or ())
            await answer_of(channel, self._path)
            if streams is None:
                return await self._on_terminal(channel)
            return int((await answer_of(channel, self._path))["exit"])
        except (trio.BrokenResourceError, KeyError, ValueError):
            raise _gone(self._path) from None

    async def _on_terminal(self, channel: ControlChannel) -> int:
        """Pass on between the caller's terminal and the line that the machine has lent."""
        if len(channel.descriptors) != len(Ends._fields):
            raise _gone(self._path)
        line, channel.descriptors = Ends(*channel.descriptors), []
        try:
            async with terminal.lent(line, self._leave):
                status = int((await answer_of(channel, self._path))["exit"])
            return status
        finally:
            trio.lowlevel.notify_closing(line.near)
            for end in line:
                os.close(end)

    async def _pass_on(self, signals: AsyncIterator[int], channel: ControlChannel, nursery: trio.Nursery) -> None:
        seen: set[int] = set()
        async for number in signals:
            if number in seen:
                self._leave(number)
            seen.add(number)
            with contextlib.suppress(trio.BrokenResourceError):
                await channel.send({"signal": PASSED_ON[signal.Signals(number)]})
            if number in ENDING:
                nursery.start_soon(self._leave_later, number)

    async def _leave_later(self, number: int) -> None:
        await trio.sleep(END_SECONDS)
        self._leave(number)

    def _leave(self, number: int) -> None:
        """Leave the command, which hears SIGHUP, because of signal `number`."""
        self._killed = number
        self._scope.cancel()
