"""An appliance: the guest that runs the filer, and the connection to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import trio

from runtime.appliance.kinds import KINDS
from runtime.appliance.mounting import mount
from runtime.appliance.program import program
from runtime.machine.control import Job
from runtime.machine.disk import Disk, disk_name
from runtime.machine.log import PANIC
from runtime.machine.machine import Machine, Options
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, sole
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import fuse as wire
from umlfs.wire import stream_requests as requests

MEMORY: Final = 128 << 20
"""Of the guest, in bytes: most of it is its page cache."""
DISKS_MAX: Final = 24
"""Each is a device that the guest's kernel has to find."""
CLOSE_SECONDS: Final = 60.0
"""How long the guest may take to write back what it holds."""


class Appliance:
    """A running appliance."""

    def __init__(self, connection: StreamConnection) -> None:
        self.connection = connection

    async def mount(self, number: int, kind: str, *, writable: bool = False) -> FuseStream:
        """The filesystem of the given kind on disk `number`. UmlError with the kernel's words if it does not mount."""
        name = f"/dev/{disk_name(number)}"
        root = await mount(self.connection, name, kind, KINDS[kind].options, writable=writable)
        return FuseStream(self.connection, root, read_only=not writable)


@contextlib.asynccontextmanager
async def appliance(
    devices: Sequence[BlockDevice],
    kinds: Sequence[str],
    *,
    writable: bool = False,
    memory: int = MEMORY,
    on_log: Callable[[bytes], None] | None = None,
) -> AsyncIterator[Appliance]:
    """Boot an appliance whose disks are `devices` (they stay the caller's), for filesystems of `kinds`.

    At the end what was written is on the devices: UmlError if that failed. UmlError if it does not boot.
    """
    options = await options_for(devices, kinds, memory=memory, on_log=on_log)
    done = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            connection = await nursery.start(_run, options, writable, done)
            try:
                yield Appliance(connection)
            finally:
                done.set()
    except BaseExceptionGroup as group:
        unwritten = group.subgroup(_Unwritten)
        raise sole(unwritten or group) from None


async def options_for(
    devices: Sequence[BlockDevice],
    kinds: Sequence[str],
    *,
    memory: int = MEMORY,
    on_log: Callable[[bytes], None] | None = None,
) -> Options:
    """How a machine is booted that is to be an appliance. UmlError."""
    if len(devices) > DISKS_MAX:
        raise UmlError(f"{len(devices)} filesystems at once, of {DISKS_MAX}", "name one of them, as in IMAGE:1")
    filer = await trio.to_thread.run_sync(program)
    modules = dict.fromkeys(name for kind in kinds for name in KINDS[kind].modules)
    return Options(
        program=filer,
        modules=tuple(modules),
        disks=[Disk(disk_name(number), device) for number, device in enumerate(devices)],
        memory=memory,
        on_log=on_log,
    )


async def _run(
    options: Options, writable: bool, done: trio.Event, task_status: trio.TaskStatus[StreamConnection]
) -> None:
    """The guest, until `done`. Once it is up it cannot be cancelled: who was may still have to put something right."""
    with trio.CancelScope() as scope:
        async with Machine(options) as machine, trio.open_nursery() as nursery:
            connection = StreamConnection()
            job = machine.start([], stdin=Requests(connection), stdout=_Answers(connection))
            nursery.start_soon(watch, job, connection)
            nursery.start_soon(connection.watch)
            await connection.ask(wire.Opcode.INIT, 0, requests.init())
            scope.shield = True
            task_status.started(connection)
            await done.wait()
            await _end(job, connection, writable)
            nursery.cancel_scope.cancel()


async def watch(job: Job, connection: StreamConnection) -> None:
    """Nobody is to wait for a filer that is gone."""
    try:
        await job.wait()
    except UmlError as error:
        connection.lose(line_of(error))
    else:
        connection.lose("the appliance has ended")


def line_of(error: UmlError) -> str:
    """What happened to the guest, in one line: where its kernel panicked, with what that said."""
    start = error.details.find(PANIC.decode())
    return error.what if start < 0 else f"{error.what}: {error.details[start:].splitlines()[0].strip()}"


async def _end(job: Job, connection: StreamConnection, writable: bool) -> None:
    connection.finish()
    if not writable:
        return
    if connection.broken is not None:
        raise _Unwritten(f"not all changes were written to the image: {connection.broken}", _FSCK)
    with trio.move_on_after(CLOSE_SECONDS):
        if await job.wait() == 0:
            return
    raise _Unwritten("not all changes were written to the image", _FSCK)


class _Unwritten(UmlError):
    """What was changed is not all in the image. It counts more than what else went wrong."""


_FSCK: Final = "check it with the fsck of its filesystem"


class Requests:
    """The filer's input."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        return await self._connection.pull(buffers)


class _Answers:
    """The filer's output."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        return self._connection.push(buffers)
