"""The client device: the contract over the wire, and servers that lie, stall and die."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.contract.block import check_block_device, check_read_only
from tests.nbd.devices import MemoryDevice, connect, serving
from umlfs.block import BlockDevice, ExtentKind
from umlfs.blocks.raw import open_raw
from umlfs.errors import UmlError
from umlfs.nbd.client import PIECE_MAX, NbdDevice
from umlfs.wire import nbd as nbd_wire
from umlfs.wire.nbd import Command, ExportFlag, Request, RequestDecoder
from umlfs.wire.nbd_handshake import Export, Phase, ServerHandshake

SIZE = 1 << 20


@pytest.mark.parametrize("size", [1 << 20, 100_000, 512, 5])
async def test_contract_over_the_wire(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * size)
    device = open_raw(image)

    async def open_device() -> BlockDevice:
        return await connect(tmp_path / "nbd")

    async with serving(device, tmp_path / "nbd"):
        await check_block_device(open_device, rounds=40)
    await device.close()


async def test_read_only_over_the_wire(tmp_path: Path) -> None:
    async with serving(MemoryDevice(SIZE), tmp_path / "nbd", read_only=True):
        device = await connect(tmp_path / "nbd")
        await check_read_only(device)
        await device.close()


async def test_large_requests_and_many_buffers(tmp_path: Path) -> None:
    memory = MemoryDevice(2 * PIECE_MAX + 4096)
    async with serving(memory, tmp_path / "nbd"):
        device = await connect(tmp_path / "nbd")
        content = bytes(range(256)) * (memory.size // 256)
        view = memoryview(content)
        await device.write_from(0, [view[:100_000], view[100_000:100_001], view[100_001:]])
        assert memory.content == content
        back = [bytearray(3072) for _ in range(memory.size // 3072 - 1)]
        await device.read_into(1024, [memoryview(part) for part in back])
        assert b"".join(back) == content[1024 : 1024 + len(back) * 3072]
        await device.close()


async def test_many_at_once_and_some_given_up(tmp_path: Path) -> None:
    memory = MemoryDevice(SIZE, fill=b"0123456789")
    async with serving(memory, tmp_path / "nbd"):
        device = await connect(tmp_path / "nbd")
        memory.gate = trio.Event()
        results: dict[int, bytearray] = {}
        scopes: dict[int, trio.CancelScope] = {}

        async def read(number: int) -> None:
            with trio.CancelScope() as scopes[number]:
                buffer = bytearray(b"\xa5" * 4096)
                results[number] = buffer
                await device.read_into(number * 512, [memoryview(buffer)])

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(read, number)
            await wait_all_tasks_blocked(0.01)
            for number in range(0, 40, 3):
                scopes[number].cancel()
            await wait_all_tasks_blocked(0.01)
            memory.gate.set()
        for number, buffer in results.items():
            expected = memory.content[number * 512 :][:4096] if number % 3 else b"\xa5" * 4096
            assert buffer == expected
        await device.flush()
        await device.close()


async def test_errors_of_the_server(tmp_path: Path) -> None:
    memory = MemoryDevice(SIZE)
    memory.fails_from = 4096
    async with serving(memory, tmp_path / "nbd"):
        device = await connect(tmp_path / "nbd")
        with pytest.raises(OSError, match="error") as caught:
            await device.read_into(4096, [memoryview(bytearray(512))])
        assert caught.value.errno == errno.EIO
        await device.flush()
        await device.close()


# Servers that are not ours ----------------------------------------------------------------------

Answer = Callable[[trio.SocketStream, Request], Awaitable[None]]

ALL = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_WRITE_ZEROES


@contextlib.asynccontextmanager
async def playing(
    answer: Answer, *, size: int = SIZE, flags: int = ALL, timeout: float = 60.0
) -> AsyncIterator[NbdDevice]:
    """A device whose server is `answer`, which is called with each request."""
    ours, theirs = trio.socket.socketpair()
    stream = trio.SocketStream(theirs)

    async def serve() -> None:
        handshake = ServerHandshake(Export("", size, flags))
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(handshake.greeting())
            while handshake.phase is not Phase.TRANSMISSION:
                await stream.send_all(handshake.feed(await stream.receive_some()))
            decoder = RequestDecoder(handshake.rest)
            while True:
                while (request := decoder.next()) is not None:
                    await answer(stream, request)
                space = decoder.space()
                data = await stream.receive_some(len(space))
                if not data:
                    return
                space[: len(data)] = data
                decoder.received(len(data))

    async def dial() -> trio.socket.SocketType:
        return ours

    async with trio.open_nursery() as nursery, stream:
        nursery.start_soon(serve)
        device = await NbdDevice.connect("test", dial, "", timeout=timeout)
        yield device
        await device.close()
        nursery.cancel_scope.cancel()


async def fails(operation: Awaitable[object], match: str) -> None:
    with pytest.raises(OSError, match=match) as caught:
        await operation
    assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (b"garbage that is long enough for a head", "makes no sense"),
        (nbd_wire.simple_reply(99), "never asked"),
        (nbd_wire.none_chunk(1), "in part"),
        (nbd_wire.hole_chunk(1, 1 << 40, 512, True), "nobody asked"),
    ],
)
async def test_a_server_that_lies(reply: bytes, match: str) -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        await stream.send_all(reply)

    async with playing(answer) as device:
        await fails(device.read_into(0, [memoryview(bytearray(512))]), match)
        await fails(device.flush(), match)


async def test_a_server_that_hangs_up_fails_all_who_wait() -> None:
    count = 0

    async def answer(stream: trio.SocketStream, request: Request) -> None:
        nonlocal count
        count += 1
        if count == 5:
            await stream.aclose()

    async with playing(answer) as device, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(fails, device.flush(), "connection lost.*hung up")


async def test_a_server_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        pass

    async with playing(answer, timeout=7) as device, trio.open_nursery() as nursery:
        nursery.start_soon(fails, device.flush(), "for 7 seconds")
        nursery.start_soon(fails, device.read_into(0, [memoryview(bytearray(512))]), "for 7 seconds")


async def test_a_server_that_drips(autojump_clock: trio.testing.MockClock) -> None:
    """A byte now and then is no progress."""

    async def answer(stream: trio.SocketStream, request: Request) -> None:
        for byte in nbd_wire.none_chunk(1) * 100:
            await trio.sleep(1)
            await stream.send_all(bytes([byte]))

    async with playing(answer, timeout=7) as device:
        await fails(device.flush(), "for 7 seconds")


async def test_a_server_that_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        await trio.sleep_forever()

    async with playing(answer, timeout=7) as device, trio.open_nursery() as nursery:
        nursery.start_soon(fails, device.flush(), "seconds|takes nothing")
        data = memoryview(bytes(512 * 1024))
        for _ in range(8):
            nursery.start_soon(fails, device.write_from(0, [data]), "seconds|takes nothing")


async def test_a_request_given_up_half_sent_ends_the_connection() -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        await trio.sleep_forever()

    async with playing(answer, size=1 << 30) as device:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.flush)
            await wait_all_tasks_blocked(0.01)
            nursery.start_soon(device.write_from, 0, [memoryview(bytes(32 << 20))])
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        await fails(device.flush(), "half sent")


async def test_a_server_of_little() -> None:
    """Neither flushing, nor zeroes, nor block status: done otherwise, or not needed."""
    seen: list[tuple[int, int, int]] = []

    async def answer(stream: trio.SocketStream, request: Request) -> None:
        seen.append((request.command, request.offset, request.length))
        await stream.send_all(nbd_wire.simple_reply(request.cookie))

    async with playing(answer, flags=ExportFlag.HAS_FLAGS) as device:
        assert not device.can_discard
        await device.flush()
        await device.discard(0, 512)
        await device.write_zeroes(512, 1024)
        assert seen == [(Command.WRITE, 512, 1024)]


async def test_extents_reach_no_further_than_asked() -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        extents = [(1024, 0), (1 << 30, 3)]
        await stream.send_all(nbd_wire.block_status_chunk(request.cookie, 1, extents))

    async with playing(answer) as device:
        found = await device.extents(512, 4096)
        assert [(e.offset, e.length, e.kind) for e in found] == [
            (512, 1024, ExtentKind.DATA),
            (1536, 3072, ExtentKind.ZERO),
        ]


async def connecting(greeting: bytes) -> None:
    ours, theirs = trio.socket.socketpair()

    async def dial() -> trio.socket.SocketType:
        return ours

    with theirs:
        await theirs.send(greeting)
        if greeting:
            theirs.shutdown(1)
        await NbdDevice.connect("test", dial, "disk")


@pytest.mark.parametrize(
    ("greeting", "match"),
    [(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "not an NBD server"), (b"NBDMAGIC", "hung up"), (b"", "no answer")],
)
async def test_connecting_to_something_else(
    greeting: bytes, match: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(UmlError, match=match):
        await connecting(greeting)


async def test_sizes_that_cannot_be() -> None:
    async def answer(stream: trio.SocketStream, request: Request) -> None:
        pass

    with pytest.RaisesGroup(UmlError, flatten_subgroups=True):
        async with playing(answer, size=(1 << 64) - 1):
            pass


async def test_an_export_that_is_not_there(tmp_path: Path) -> None:
    async with serving(MemoryDevice(SIZE), tmp_path / "nbd", name="disk"):
        with pytest.raises(UmlError, match="no such export"):
            await connect(tmp_path / "nbd", "other")


async def test_closing_says_goodbye() -> None:
    seen: list[int] = []

    async def answer(stream: trio.SocketStream, request: Request) -> None:
        seen.append(request.command)

    async with playing(answer) as device:
        await device.close()
        await wait_all_tasks_blocked()
        assert seen == [Command.DISC]
        await fails(device.flush(), "closed")


def test_the_magic_of_a_request() -> None:
    assert struct.pack(">I", nbd_wire.REQUEST_MAGIC) == b"\x25\x60\x95\x13"
