"""A filesystem as a tar archive: written by the program in an appliance, and never seen by Python but as bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio

from runtime.appliance.guest import Requests, line_of, options_for, watch
from runtime.appliance.kinds import KINDS
from runtime.appliance.mounting import mount
from runtime.machine.control import Job, OutputStream
from runtime.machine.disk import disk_name
from runtime.machine.machine import Machine
from runtime.tty.streams import Collector
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, sole
from umlfs.stream.connection import StreamConnection
from umlfs.wire import stream_replies as replies
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode

ERRORS_MAX: Final = 1 << 20
"""Bytes of what could not be read that are kept."""


async def pack(device: BlockDevice, kind: str, sink: OutputStream, inside: str = "/") -> tuple[bool, list[str]]:
    """Write all that is in the filesystem of this kind on `device`, which stays the caller's and as it is, or in the
    directory `inside` of it, as a tar archive in the form of GNU tar's pax to `sink`.

    Whether all of it could be read, and what there is to say, in lines as GNU tar's. UmlError if it does not mount, or
    the guest ends.
    """
    connection = StreamConnection()
    archive = _Archive(connection, sink)
    errors = Collector(ERRORS_MAX)
    options = await options_for([device], [kind])
    try:
        async with Machine(options) as machine, trio.open_nursery() as nursery:
            job = machine.start([], stdin=Requests(connection), stdout=archive, stderr=errors)
            nursery.start_soon(watch, job, connection)
            nursery.start_soon(connection.watch)
            await _begin(connection, kind, inside)
            archive.begins = True
            connection.finish()
            complete = await _complete(job)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise sole(group) from None
    return complete, bytes(errors.data).decode(errors="replace").splitlines()


async def _complete(job: Job) -> bool:
    try:
        return await job.wait() == 0
    except UmlError as error:
        raise UmlError(line_of(error)) from None


async def _begin(connection: StreamConnection, kind: str, inside: str) -> None:
    try:
        await connection.ask(Opcode.INIT, 0, requests.init())
        root = await mount(connection, f"/dev/{disk_name(0)}", kind, KINDS[kind].options, writable=False)
    except OSError as error:
        raise UmlError(f"cannot be packed: {connection.broken or error.strerror}") from None
    node = root
    try:
        for name in filter(None, inside.split("/")):
            answer = await connection.ask(Opcode.LOOKUP, node.ino, requests.strings(os.fsencode(name)))
            node = replies.entry(answer.data)
        await connection.ask(requests.PACK, node.ino)
    except OSError as error:
        raise UmlError(f"{inside}: {connection.broken or error.strerror}") from None


class _Archive:
    """The program's output: answers, and then the archive."""

    def __init__(self, connection: StreamConnection, sink: OutputStream) -> None:
        self._connection = connection
        self._sink = sink
        self.begins = False
        """No more answers come. Set before the program hears that no more requests do."""

    async def write_from(self, buffers: Sequence[memoryview]) -> int:
        return await self._sink.write_from(buffers) if self.begins else self._connection.push(buffers)
