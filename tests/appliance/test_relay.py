"""Between a client of a kept appliance and its program, which is this test."""

from __future__ import annotations

import errno
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtime.appliance.relay import AT_ONCE, relay
from umlfs.stream.connection import StreamConnection
from umlfs.wire import fuse as wire
from umlfs.wire import stream_requests as requests
from umlfs.wire.fuse import Opcode


def request(opcode: int, unique: int, body: bytes = b"") -> bytes:
    return requests.request(opcode, unique, 5, [body], None) + body


def reply(unique: int, body: bytes = b"", error: int = 0) -> bytes:
    return wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(body), -error, unique) + body


async def pulled(connection: StreamConnection) -> bytes:
    buffer = bytearray(1 << 20)
    return bytes(buffer[: await connection.pull([memoryview(buffer)])])


async def started(nursery: trio.Nursery) -> tuple[trio.SocketStream, StreamConnection, trio.Event]:
    """The client's end, the program's, and whether the relay has ended."""
    client, other = trio.socket.socketpair()
    connection, ended = StreamConnection(), trio.Event()

    async def run() -> None:
        with other:
            try:
                await relay(trio.SocketStream(other), connection)
            except* (ValueError, trio.BrokenResourceError):
                pass
        ended.set()

    nursery.start_soon(run)
    return trio.SocketStream(client), connection, ended


async def test_bytes_go_through_however_they_are_cut(nursery: trio.Nursery) -> None:
    client, connection, ended = await started(nursery)
    asked = request(Opcode.GETATTR, 2) + request(Opcode.READ, 4, os.urandom(40)) + request(Opcode.FORGET, 6, bytes(8))
    for byte in asked:
        await client.send_all(bytes([byte]))
    seen = b""
    while len(seen) < len(asked):
        seen += await pulled(connection)
    assert seen == asked
    answers = reply(4, os.urandom(3000)) + reply(2, error=errno.ENOENT)
    for byte in answers:
        connection.push([memoryview(bytes([byte]))])
    found = b""
    while len(found) < len(answers):
        found += await client.receive_some(1 << 16)
    assert found == answers
    await client.aclose()
    await ended.wait()
    assert (connection.broken, connection.passed_on) == (None, None)


async def test_what_is_not_for_clients_is_refused_between_answers(nursery: trio.Nursery) -> None:
    client, connection, _ = await started(nursery)
    await client.send_all(request(Opcode.GETATTR, 2))
    await pulled(connection)
    whole = reply(2, bytes(100))
    connection.push([memoryview(whole[:50])])
    await client.send_all(request(Opcode.DESTROY, 4) + request(requests.MOUNT, 6))
    await wait_all_tasks_blocked()
    connection.push([memoryview(whole[50:])])
    wanted = whole + reply(4, error=errno.ENOSYS) + reply(6, error=errno.ENOSYS)
    found = b""
    while len(found) < len(wanted):
        found += await client.receive_some(1 << 16)
    assert found == wanted
    await client.aclose()


async def test_a_client_that_goes_leaves_nothing_to_the_next(nursery: trio.Nursery) -> None:
    client, connection, ended = await started(nursery)
    await client.send_all(request(Opcode.GETATTR, 2))
    assert await pulled(connection)
    await client.aclose()
    await wait_all_tasks_blocked()
    assert not ended.is_set()
    connection.push([memoryview(reply(2, bytes(100)))])
    await ended.wait()
    assert connection.broken is None


async def test_a_greedy_client_waits(nursery: trio.Nursery) -> None:
    client, connection, _ = await started(nursery)
    await client.send_all(b"".join(request(Opcode.GETATTR, 2 * n) for n in range(1, AT_ONCE + 5)))
    await wait_all_tasks_blocked()
    assert len(await pulled(connection)) == AT_ONCE * wire.IN_HEADER.size
    connection.push([memoryview(reply(2))])
    await wait_all_tasks_blocked()
    assert len(await pulled(connection)) == wire.IN_HEADER.size
    for number in range(2, AT_ONCE + 2):
        connection.push([memoryview(reply(2 * number))])
    await client.aclose()
    for number in range(AT_ONCE + 2, AT_ONCE + 5):
        await wait_all_tasks_blocked()
        if connection.passed_on is not None:
            connection.push([memoryview(reply(2 * number))])


@pytest.mark.parametrize("nonsense", [reply(8, bytes(9)), wire.OUT_HEADER.pack(1 << 30, 0, 2)])
async def test_a_program_that_makes_no_sense_is_lost(nursery: trio.Nursery, nonsense: bytes) -> None:
    client, connection, ended = await started(nursery)
    if len(nonsense) == wire.OUT_HEADER.size:
        await client.send_all(request(Opcode.GETATTR, 2))
    await wait_all_tasks_blocked()
    connection.push([memoryview(nonsense)])
    await ended.wait()
    assert connection.broken is not None
    assert await client.receive_some(1) == b""
    await client.aclose()


async def test_a_client_that_makes_no_sense_is_dropped(nursery: trio.Nursery) -> None:
    client, connection, ended = await started(nursery)
    await client.send_all(b"\0" * wire.IN_HEADER.size)
    await ended.wait()
    assert connection.broken is None
    await client.aclose()
