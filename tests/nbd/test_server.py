"""The server, as seen by clients that speak the protocol byte by byte."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.nbd.devices import MemoryDevice, connect, serving
from umlfs.errors import UsageError
from umlfs.nbd import connection as nbd_connection
from umlfs.nbd.server import CLIENTS_MAX, describe
from umlfs.wire import nbd as nbd_wire
from umlfs.wire.nbd import Command, CommandFlag, ExportFlag
from umlfs.wire.nbd_client_handshake import ClientHandshake
from umlfs.wire.nbd_handshake import Phase
from umlfs.wire.nbd_reply import request

SIZE = 1 << 20
EINVAL, ENOSPC, EPERM, EOVERFLOW, ENOTSUP = 22, 28, 1, 75, 95


class Client:
    """A connection past the handshake."""

    def __init__(self, stream: trio.SocketStream, handshake: ClientHandshake) -> None:
        self.stream = stream
        self.handshake = handshake
        self._rest = handshake.rest

    async def take(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = await self.stream.receive_some()
            assert data, "the server hung up"
            self._rest += data
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    async def send(
        self, command: int, offset: int = 0, length: int = 0, flags: int = 0, *, cookie: int = 1, payload: bytes = b""
    ) -> None:
        await self.stream.send_all(request(command, flags, cookie, offset, length) + payload)

    async def simple(self) -> tuple[int, int]:
        """Cookie and error of a simple reply."""
        magic, error, cookie = struct.unpack(">IIQ", await self.take(16))
        assert magic == nbd_wire.SIMPLE_REPLY_MAGIC
        return cookie, error

    async def chunk(self) -> tuple[int, int, int, bytes]:
        """Flags, type, cookie and content of a structured reply chunk."""
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", await self.take(20))
        assert magic == nbd_wire.STRUCTURED_REPLY_MAGIC
        return flags, kind, cookie, await self.take(length)

    async def hung_up(self) -> bool:
        try:
            return not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


@contextlib.asynccontextmanager
async def client(path: Path, *, structured: bool = True) -> AsyncIterator[Client]:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        handshake = ClientHandshake("")
        if not structured:
            # As a client that knows nothing new.
            assert await stream.receive_some(18) == b"NBDMAGICIHAVEOPT\0\3"
            await stream.send_all(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0))
            handshake.phase = Phase.TRANSMISSION
            await stream.receive_some(10)
        while handshake.phase is not Phase.TRANSMISSION:
            await stream.send_all(handshake.feed(await stream.receive_some()))
        yield Client(stream, handshake)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nbd"


DF, FUA, NO_HOLE = CommandFlag.DF, CommandFlag.FUA, CommandFlag.NO_HOLE
FAST_ZERO, REQ_ONE = CommandFlag.FAST_ZERO, CommandFlag.REQ_ONE


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (Command.WRITE, SIZE - 512, 1024, 0, ENOSPC),
        (Command.WRITE, 1, 512, 0, EINVAL),
        (Command.WRITE, 0, 511, 0, EINVAL),
        (Command.WRITE, 0, 512, DF, EINVAL),
        (Command.WRITE, 0, nbd_wire.PAYLOAD_MAX + 512, 0, EINVAL),
        (Command.WRITE_ZEROES, (1 << 64) - 512, 0xFFFFFE00, 0, ENOSPC),
        (Command.WRITE_ZEROES, 0, 512, FAST_ZERO | NO_HOLE, ENOTSUP),
        (Command.WRITE_ZEROES, 0, 512, FAST_ZERO, 0),
        (Command.TRIM, SIZE, 512, 0, EINVAL),
        (Command.TRIM, 0, 512, NO_HOLE, EINVAL),
        (Command.CACHE, SIZE, 512, 0, EINVAL),
        (Command.CACHE, 0, SIZE, 0, 0),
        (Command.FLUSH, 0, 0, 0x8000, EINVAL),
        (8, 0, 0, 0, EINVAL),
        (0xFFFF, 0, 512, 0, EINVAL),
    ],
)
async def test_wrong_requests(path: Path, command: int, offset: int, length: int, flags: int, error: int) -> None:
    device = MemoryDevice(SIZE, fill=b"x")
    async with serving(device, path), client(path) as peer:
        payload = bytes(length) if command == Command.WRITE else b""
        await peer.send(command, offset, length, flags, cookie=7, payload=payload)
        await peer.send(Command.FLUSH, cookie=8)
        assert await peer.simple() == (7, error)
        assert await peer.simple() == (8, 0)
    assert not error or device.content == b"x" * SIZE


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (Command.READ, SIZE, 512, 0, EINVAL),
        (Command.READ, 1, 512, 0, EINVAL),
        (Command.READ, 0, nbd_wire.PAYLOAD_MAX + 512, 0, EINVAL),
        (Command.READ, 0, 0xFFFFFE00, DF, EOVERFLOW),
        (Command.BLOCK_STATUS, 0, 0, 0, EINVAL),
        (Command.BLOCK_STATUS, 0, SIZE + 512, 0, EINVAL),
    ],
)
async def test_wrong_requests_for_data(
    path: Path, command: int, offset: int, length: int, flags: int, error: int
) -> None:
    async with serving(MemoryDevice(SIZE), path), client(path) as peer:
        await peer.send(command, offset, length, flags, cookie=7)
        done, kind, cookie, content = await peer.chunk()
        assert (done, kind, cookie) == (1, nbd_wire.ChunkType.ERROR, 7)
        assert struct.unpack_from(">I", content)[0] == error


@pytest.mark.parametrize("command", [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES])
@pytest.mark.parametrize("device", [True, False])
async def test_read_only(path: Path, command: int, device: bool) -> None:
    memory = MemoryDevice(SIZE, read_only=device, fill=b"x")
    async with serving(memory, path, read_only=not device), client(path) as peer:
        assert peer.handshake.export.flags & ExportFlag.READ_ONLY
        await peer.send(command, 0, 512, payload=bytes(512) if command == Command.WRITE else b"")
        assert await peer.simple() == (1, EPERM)
    assert memory.content == b"x" * SIZE


async def test_large_reads_come_in_pieces_unless_told_not_to(path: Path) -> None:
    device = MemoryDevice(SIZE, fill=b"0123456789")
    async with serving(device, path), client(path) as peer:
        await peer.send(Command.READ, 512, 600 * 1024)
        content = b""
        flags = 0
        while not flags:
            flags, kind, _, data = await peer.chunk()
            assert kind == nbd_wire.ChunkType.OFFSET_DATA
            assert struct.unpack_from(">Q", data)[0] == 512 + len(content)
            content += data[8:]
        assert content == device.content[512 : 512 + 600 * 1024]
        await peer.send(Command.READ, 0, 600 * 1024, DF)
        flags, _, _, data = await peer.chunk()
        assert (flags, data[8:]) == (1, bytes(device.content[: 600 * 1024]))
        await peer.send(Command.READ, 0, 0)
        assert await peer.chunk() == (1, nbd_wire.ChunkType.NONE, 1, b"")


async def test_a_bad_sector_is_told_where_it_is(path: Path) -> None:
    device = MemoryDevice(SIZE, fill=b"x")
    device.fails_from = 300 * 1024
    async with serving(device, path), client(path) as peer:
        await peer.send(Command.READ, 0, SIZE)
        assert (await peer.chunk())[:2] == (0, nbd_wire.ChunkType.OFFSET_DATA)
        flags, kind, _, content = await peer.chunk()
        assert (flags, kind) == (1, nbd_wire.ChunkType.ERROR_OFFSET)
        assert content == struct.pack(">IH", 5, 12) + b"a bad sector" + struct.pack(">Q", 256 * 1024)


async def test_simple_replies(path: Path) -> None:
    device = MemoryDevice(SIZE, fill=b"0123456789")
    device.fails_from = 900 * 1024
    async with serving(device, path), client(path, structured=False) as peer:
        await peer.send(Command.READ, 512, 600 * 1024)
        assert await peer.simple() == (1, 0)
        assert await peer.take(600 * 1024) == device.content[512 : 512 + 600 * 1024]
        await peer.send(Command.READ, 0, SIZE, cookie=2)
        assert await peer.simple() == (2, 5)
        await peer.send(Command.READ, 0, 512, DF, cookie=3)
        assert await peer.simple() == (3, EINVAL)
        await peer.send(Command.BLOCK_STATUS, 0, 512, cookie=4)
        assert await peer.simple() == (4, EINVAL)


async def test_what_is_done_to_the_device(path: Path) -> None:
    device = MemoryDevice(SIZE)
    async with serving(device, path), client(path) as peer:
        await peer.send(Command.WRITE, 512, 512, FUA, payload=b"a" * 512)
        await peer.send(Command.TRIM, 0, 4096)
        await peer.send(Command.TRIM, 0, 4096, FUA)
        await peer.send(Command.WRITE_ZEROES, 0, 8192)
        await peer.send(Command.WRITE_ZEROES, 0, 8192, NO_HOLE | FUA)
        await peer.send(Command.FLUSH)
        for _ in range(6):
            assert (await peer.simple())[1] == 0
    assert device.calls == [
        "write 512 512",
        "flush",
        "discard 0 4096",
        "discard 0 4096",
        "flush",
        "zeroes 0 8192 True",
        "zeroes 0 8192 False",
        "flush",
        "flush",
    ]


async def test_block_status(path: Path) -> None:
    device = MemoryDevice(SIZE)
    device.zero_from = 4096
    async with serving(device, path), client(path) as peer:
        await peer.send(Command.BLOCK_STATUS, 1024, 8192)
        flags, kind, _, content = await peer.chunk()
        assert (flags, kind) == (1, nbd_wire.ChunkType.BLOCK_STATUS)
        assert struct.unpack(">5I", content) == (1, 3072, 0, 5120, 3)
        await peer.send(Command.BLOCK_STATUS, 1024, 8192, REQ_ONE)
        assert struct.unpack(">3I", (await peer.chunk())[3]) == (1, 3072, 0)


async def test_a_request_that_waits_holds_up_no_other(path: Path) -> None:
    device = MemoryDevice(SIZE)
    device.gate = trio.Event()
    async with serving(device, path), client(path) as peer:
        # Written in place and in memory of their own; both must still be whole when their time comes.
        for cookie, length in ((1, 512), (2, 128 * 1024), (3, 512), (4, 512)):
            await peer.send(Command.WRITE, cookie * 131072, length, cookie=cookie, payload=bytes([cookie]) * length)
        await peer.send(Command.FLUSH, cookie=9)
        assert await peer.simple() == (9, 0)
        assert device.waiting == 4
        device.gate.set()
        assert {(await peer.simple())[0] for _ in range(4)} == {1, 2, 3, 4}
    for cookie, length in ((1, 512), (2, 128 * 1024), (3, 512), (4, 512)):
        assert device.content[cookie * 131072 :][:length] == bytes([cookie]) * length


async def test_goodbye_comes_after_what_is_under_way(path: Path) -> None:
    device = MemoryDevice(SIZE)
    device.gate = trio.Event()
    async with serving(device, path), client(path) as peer:
        await peer.send(Command.WRITE, 0, 512, cookie=3, payload=b"z" * 512)
        await peer.send(Command.DISC)
        await wait_all_tasks_blocked()
        device.gate.set()
        assert await peer.simple() == (3, 0)
        assert await peer.hung_up()
    assert device.content[:512] == b"z" * 512


async def test_a_client_that_takes_no_replies_holds_up_only_itself(path: Path) -> None:
    device = MemoryDevice(64 << 20)
    async with serving(device, path), client(path) as stalled, client(path) as peer:
        # Asks for 8 GiB of replies, and takes none.
        with trio.move_on_after(0.5):
            while True:
                await stalled.send(Command.READ, 0, 32 << 20)
        read = sum(int(call.split()[2]) for call in device.calls)
        assert read <= nbd_connection.HELD_MAX + 2 * nbd_wire.PAYLOAD_MAX
        await peer.send(Command.FLUSH, cookie=5)
        assert await peer.simple() == (5, 0)


async def test_requests_under_way_are_limited(path: Path) -> None:
    device = MemoryDevice(SIZE)
    device.gate = trio.Event()
    count = 2 * nbd_connection.HELD_MAX // nbd_connection.REQUEST_WEIGHT
    async with serving(device, path), client(path) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, request(Command.READ, 0, 1, 0, 512) * count)
        await wait_all_tasks_blocked(0.05)
        assert 0 < device.waiting <= nbd_connection.HELD_MAX // nbd_connection.REQUEST_WEIGHT
        device.gate.set()
        for _ in range(count):
            assert (await peer.chunk())[0] == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n" + bytes(32), request(Command.WRITE, 0, 1, 0, 512) + b"half"]
)
async def test_garbage_ends_one_connection(path: Path, data: bytes) -> None:
    device = MemoryDevice(SIZE, fill=b"x")
    async with serving(device, path), client(path) as peer:
        async with client(path) as broken:
            await broken.stream.send_all(data)
            await broken.stream.send_eof()
            assert await broken.hung_up()
        await peer.send(Command.FLUSH)
        assert await peer.simple() == (1, 0)
    assert device.content == b"x" * SIZE


async def test_so_many_clients_and_no_more(path: Path) -> None:
    async with serving(MemoryDevice(SIZE), path), contextlib.AsyncExitStack() as stack:
        for _ in range(CLIENTS_MAX):
            await stack.enter_async_context(client(path))
        extra = await stack.enter_async_context(await trio.open_unix_socket(str(path)))
        assert not await extra.receive_some()


async def test_a_client_that_never_chooses_is_dropped(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(MemoryDevice(SIZE), path):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.receive_some()
            assert not await stream.receive_some()


async def test_a_flush_covers_every_connection(path: Path) -> None:
    device = MemoryDevice(SIZE)
    async with serving(device, path), client(path) as first, client(path) as second:
        assert first.handshake.export.flags & ExportFlag.CAN_MULTI_CONN
        await first.send(Command.WRITE, 0, 512, payload=bytes(512))
        await first.simple()
        await second.send(Command.FLUSH)
        await second.simple()
    assert device.calls == ["write 0 512", "flush"]


async def test_a_defect_of_a_provider_is_the_servers_end(path: Path) -> None:
    class Broken(MemoryDevice):
        async def flush(self) -> None:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with serving(Broken(SIZE), path), client(path) as peer:
            await peer.send(Command.FLUSH)
            await peer.hung_up()
            await trio.sleep_forever()


@pytest.mark.parametrize(("size", "block"), [(0, 512), (4096, 512), (4098, 2), (1000, 8), (4097, 1)])
def test_minimum_block(size: int, block: int) -> None:
    assert describe(MemoryDevice(size)).minimum_block == block


def test_names_have_a_limit() -> None:
    with pytest.raises(UsageError):
        describe(MemoryDevice(SIZE), "x" * 5000)


async def test_shutting_down_leaves_nothing_behind(path: Path) -> None:
    device = MemoryDevice(SIZE)
    async with serving(device, path):
        remote = await connect(path)
    with pytest.raises(OSError, match="connection lost") as caught:
        await remote.flush()
    assert caught.value.errno == errno.ENOTCONN
    await remote.close()
    assert not os.path.lexists(path)
