"""A guest that stands booted until a command comes for it, and does that one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import trio

from runtime.command.foreground import Foreground
from runtime.command.prepared import Prepared
from runtime.machine.machine import Machine
from runtime.machine.script import run_script
from runtime.process import open_files
from runtime.process.processes import for_machines
from runtime.standby import worker
from runtime.standby.loaded import Files, unchanged
from runtime.warm.places import guest_path, prolong
from umlfs.host.listening import unix_listener

FORGET: Final = "echo 3 >/proc/sys/vm/drop_caches"
"""Has the guest's kernel look at everything anew."""
REST_SECONDS: Final = 0.05
"""How long the guest has to come to rest before it is stopped. What it has not done by then it does later."""
STANDS: Final = b"s"
"""What the keeper is told when a command may come,"""
TAKEN: Final = b"t"
"""when one has,"""
STALE: Final = b"o"
"""and when one would have, had nothing changed on the host that the guest was booted with."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What the command line is to a guest that stands."""

    prepare: Callable[[list[str]], Prepared | None]
    """What `uml ARGUMENTS` is to do, in the process's present directory and environment; None if it is not `uml run`,
    or makes no sense."""
    report: Callable[[BaseException], int]
    """Tells on standard error what failed; the exit status."""


@dataclass(frozen=True, slots=True)
class _Client:
    """Whoever handed over a command."""

    connection: socket.socket
    command: Prepared


def stand(prepared: Prepared, commands: Commands, files: Files, lifeline: int, keeper: int) -> None:
    """Boot a guest, and run the first command that comes for it. Ends when `lifeline` does before that, or the guest.

    `keeper` is the descriptor of the pipe to the keeper. For a process of its own.
    """
    open_files.raise_limit()
    with for_machines():
        trio.run(_stand, prepared, commands, files, lifeline, keeper)


async def _stand(prepared: Prepared, commands: Commands, files: Files, lifeline: int, keeper: int) -> None:
    state = prepared.state()

    stale = trio.Event()

    def suits(command: Prepared) -> bool:
        if command.key != prepared.key or command.why_not_warm:
            return False
        if command.state() != state:
            stale.set()
        return not stale.is_set()

    async with Machine(replace(prepared.options, terminal=True, on_log=None, on_network=None)) as machine:
        await run_script(machine, FORGET)
        await machine.staging.stage(prepared.how)
        await trio.sleep(REST_SECONDS)
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGSTOP)
        with unix_listener(guest_path(prepared.key, os.getpid())) as listener:
            _tell(keeper, STANDS)
            client = await _awaited(listener, lifeline, machine, stale, lambda c: _accepted(c, commands, files, suits))
        if client is None:
            _tell(keeper, STALE if stale.is_set() else b"")
            return
        _tell(keeper, TAKEN)
        with client.connection:
            os.kill(machine.pid, signal.SIGCONT)
            status = await _serve(machine, client, commands)
            if client.command.warm is not None:
                prolong(prepared.key, client.command.warm)
            with contextlib.suppress(OSError):
                client.connection.send(b"%d\n" % status, socket.MSG_NOSIGNAL)


def _tell(keeper: int, word: bytes) -> None:
    """Tell the keeper, if it is there."""
    with contextlib.suppress(OSError):
        os.write(keeper, word)


async def _awaited(
    listener: socket.socket,
    lifeline: int,
    machine: Machine,
    stale: trio.Event,
    accepted: Callable[[socket.socket], _Client | None],
) -> _Client | None:
    """The first client whose command suits; None if the lifeline or the machine ends before, or the guest is stale."""
    found: _Client | None = None
    async with trio.open_nursery() as nursery:

        async def end_with_lifeline() -> None:
            await trio.lowlevel.wait_readable(lifeline)
            nursery.cancel_scope.cancel()

        async def end_with_machine() -> None:
            await machine.ended()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_with_lifeline)
        nursery.start_soon(end_with_machine)
        while found is None and not stale.is_set():
            await trio.lowlevel.wait_readable(listener)
            with contextlib.suppress(BlockingIOError):
                connection, _ = listener.accept()
                found = accepted(connection)
                if found is None:
                    connection.close()
        nursery.cancel_scope.cancel()
    return found


def _accepted(
    connection: socket.socket, commands: Commands, files: Files, suits: Callable[[Prepared], bool]
) -> _Client | None:
    """The client at the other end, in whose place this process is from now on; None if its command is not for us."""
    try:
        request = worker.receive(connection)
    except (OSError, ValueError, EOFError, struct.error):
        return None
    if not _is_ours(connection, request, commands, files, suits):
        for descriptor in request.descriptors:  # its reader waits for the end of its output
            os.close(descriptor)
        return None
    worker.take_streams(request.descriptors)
    command = commands.prepare(request.arguments)  # once more: whether it is on a terminal its streams tell
    open_files.raise_limit()
    connection.setblocking(False)
    return None if command is None else _Client(connection, command)


def _is_ours(
    connection: socket.socket,
    request: worker.Invocation,
    commands: Commands,
    files: Files,
    suits: Callable[[Prepared], bool],
) -> bool:
    """Whether the request is one for this guest, and the client has heard that it is done here."""
    try:
        if not (unchanged(files) and worker.take_place(request)):
            return False
        command = commands.prepare(request.arguments)
        return command is not None and suits(command) and worker.agreed(connection)
    except (OSError, ValueError):
        return False


async def _serve(machine: Machine, client: _Client, commands: Commands) -> int:
    """Run the command; the exit status."""
    command = client.command
    run = Foreground(replace(command.options, terminal=command.on_terminal), command.timeout, standing=machine)
    try:
        async with trio.open_nursery() as nursery:

            async def end_with_client() -> None:
                await trio.lowlevel.wait_readable(client.connection)
                run.kill(signal.SIGKILL)

            nursery.start_soon(end_with_client)
            status = await run.run(
                command.words, directory=command.directory, environment=command.environment, user=command.user
            )
            nursery.cancel_scope.cancel()
    except Exception as error:
        return commands.report(error)
    return status
