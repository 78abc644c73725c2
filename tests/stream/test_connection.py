"""Requests and answers over a stream whose other end is this test."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from umlfs.filesystem import Attr, Entry
from umlfs.stream.connection import StreamConnection
from umlfs.stream.filesystem import FuseStream
from umlfs.wire import fuse as wire
from umlfs.wire.fuse import Opcode
from umlfs.wire.stream_replies import Pending

DIRECTORY = Attr(2, 0o40755, 2, 0, 0, 0, 4096, 8, 0, 0, 0)


async def requests(connection: StreamConnection) -> list[tuple[wire.Header, bytes]]:
    """All that is waiting to be sent."""
    buffer = bytearray(1 << 16)
    data = bytes(buffer[: await connection.pull([memoryview(buffer)[:10], memoryview(buffer)[10:]])])
    found = []
    while data:
        header = wire.Header._make(wire.IN_HEADER.unpack_from(data))
        found.append((header, data[wire.IN_HEADER.size : header.length]))
        data = data[header.length :]
    return found


def answer(connection: StreamConnection, unique: int, body: bytes = b"", error: int = 0) -> None:
    data = wire.OUT_HEADER.pack(16 + len(body), -error, unique) + body
    assert connection.push([memoryview(data)]) == len(data)


async def test_answers_may_come_in_any_order() -> None:
    connection = StreamConnection()
    found: dict[int, bytes] = {}

    async def ask(node: int) -> None:
        found[node] = bytes((await connection.ask(Opcode.GETATTR, node)).data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 5)
        nursery.start_soon(ask, 6)
        await wait_all_tasks_blocked()
        for header, _ in reversed(await requests(connection)):
            answer(connection, header.unique, b"%d" % header.node)
    assert found == {5: b"5", 6: b"6"}


async def test_errors_are_raised() -> None:
    connection = StreamConnection()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(PermissionError):
                await connection.ask(Opcode.UNLINK, 5, b"x\0")

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        ((header, body),) = await requests(connection)
        assert (header.opcode, body) == (Opcode.UNLINK, b"x\0")
        answer(connection, header.unique, error=errno.EACCES)


@pytest.mark.parametrize("nonsense", [b"\xff" * 16, wire.OUT_HEADER.pack(16, 0, 12345)])
async def test_nonsense_fails_everyone_and_for_good(nonsense: bytes) -> None:
    connection = StreamConnection()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(OSError, match="makes no sense") as caught:
                await connection.ask(Opcode.GETATTR, 5)
            assert caught.value.errno == errno.EIO

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        connection.push([memoryview(nonsense)])
    with pytest.raises(OSError, match="makes no sense"):
        await connection.ask(Opcode.GETATTR, 5)
    assert await connection.pull([memoryview(bytearray(10))]) == 0


async def test_silence_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    connection = StreamConnection(timeout=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.watch)
        await wait_all_tasks_blocked()
        with pytest.raises(OSError, match="no answer for 5 seconds"):
            await connection.ask(Opcode.GETATTR, 5)


async def test_who_is_cancelled_keeps_nothing() -> None:
    """Neither does the other end see what the buffers hold later, nor do lookups stay counted."""
    connection = StreamConnection()
    filesystem = FuseStream(connection, Entry(2, DIRECTORY), read_only=False)
    data = bytearray(b"before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filesystem.lookup, 1, b"name")
        nursery.start_soon(filesystem.write_from, 9, 3, 0, [memoryview(data)])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    data[:] = b"after!"
    sent = {header.opcode: (header, body) for header, body in await requests(connection)}
    assert sent[Opcode.WRITE][1].endswith(b"before")
    answer(connection, sent[Opcode.LOOKUP][0].unique, wire.entry_out(Entry(5, DIRECTORY)))
    connection.post(Opcode.STATFS, 2)
    connection.forget(6, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.ask, Opcode.STATFS, 2)
        await wait_all_tasks_blocked()
        later = {header.opcode: body for header, body in await requests(connection)}
        assert wire.forgets(later[Opcode.BATCH_FORGET]) == [(5, 1), (6, 1)]
        nursery.cancel_scope.cancel()


async def test_a_read_never_gets_more_than_it_asked_for() -> None:
    connection = StreamConnection()
    filesystem = FuseStream(connection, Entry(2, DIRECTORY), read_only=True)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(OSError, match="makes no sense"):
                await filesystem.read_into(5, 0, 0, [memoryview(bytearray(10))])

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        ((header, _),) = await requests(connection)
        answer(connection, header.unique, bytes(11))


async def test_a_readers_changes_are_refused_at_once() -> None:
    filesystem = FuseStream(StreamConnection(), Entry(2, DIRECTORY), read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        await filesystem.unlink(1, b"x")


async def test_finishing_ends_the_stream_after_what_is_queued() -> None:
    connection = StreamConnection()
    connection.post(Opcode.DESTROY, 0)
    connection.finish()
    assert [header.opcode for header, _ in await requests(connection)] == [Opcode.DESTROY]
    assert await connection.pull([memoryview(bytearray(10))]) == 0
    assert Pending(0).into == ()
