"""The back end, spoken to by a front end: as the kernel speaks, and as nobody should."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from hostfs import HostFilesystem
from tests.contract.providers import FILE, NAME, OneFile, Slow
from tests.fuse.fuse_client import FuseClient
from tests.virtio import frontend as fe
from tests.virtio.frontend import Guest, connected
from umlfs.filesystem import NO_HANDLE, ROOT
from umlfs.host.listening import unix_listener
from umlfs.virtio import vhost_user
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.vhost_user import Backend, serve

logs_warnings = pytest.mark.logs_warnings


def device(filesystem: OneFile | None = None) -> VirtioFs:
    return VirtioFs("tag", filesystem or OneFile())


async def hung_up(guest: Guest) -> None:
    """The back end must have closed the connection."""
    with pytest.raises(EOFError):
        await guest.receive()


# As the kernel speaks -------------------------------------------------------------------------


async def test_a_mount_from_greeting_to_hanging_up() -> None:
    filesystem = OneFile()
    async with connected(device(filesystem)) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        assert (await client.lookup(ROOT, NAME)).ino == FILE
        assert filesystem.lookups == 1
        client.forget(FILE, 1)
        assert (await client.getattr(FILE))[0].size == 8
        assert filesystem.lookups == 0
        data = bytearray(100)
        assert await client.read_into(FILE, NO_HANDLE, 0, [memoryview(data)]) == 8
        assert await client.write_from(FILE, NO_HANDLE, 4, [memoryview(b"more contents")]) == 13
        assert filesystem.data == b"contmore contents"
        before = filesystem.disconnects
    assert filesystem.disconnects > before


async def test_hostfs_through_the_device(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    filesystem = HostFilesystem(tmp_path)
    async with connected(VirtioFs("tag", filesystem), ring_size=1024) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        ino = (await client.lookup(ROOT, b"file")).ino
        read = bytearray(len(data))
        assert await client.read_into(ino, NO_HANDLE, 0, [memoryview(read)]) == len(data)
        assert read == data
        assert await client.write_from(ino, NO_HANDLE, 1, [memoryview(data)]) == len(data)
        await client.fsync(ino, NO_HANDLE)
    assert (tmp_path / "file").read_bytes() == data[:1] + data
    await filesystem.close()


async def test_indirect_descriptors() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        assert guest.features & 1 << 28
        client = FuseClient(guest)
        await client.mount()
        _, header = client._header(3, ROOT, 16, None)
        answer = await guest.wait(1, guest.add(1, [header, bytes(16)], [16, 104], indirect=True))
        assert len(answer) == 120


@pytest.mark.parametrize("size", range(13, 49))
async def test_the_tag_is_read_byte_by_byte(size: int) -> None:
    async with connected(device()) as guest:
        await guest.greet()
        config = b"tag".ljust(36, b"\0") + b"\1\0\0\0"
        answer = await guest.get(fe.GET_CONFIG, struct.pack("<III", 0, size, 0) + bytes(size))
        assert answer == struct.pack("<III", 0, size, 0) + config.ljust(size, b"\0")[:size]


async def test_configuration_from_anywhere() -> None:
    async with connected(device()) as guest:
        for offset, size, expected in ((1, 2, b"ag"), (36, 4, b"\1\0\0\0"), (39, 3, bytes(3)), (2**32 - 1, 1, b"\0")):
            answer = await guest.get(fe.GET_CONFIG, struct.pack("<III", offset, size, 0) + bytes(size))
            assert answer == struct.pack("<III", offset, size, 0) + expected


@logs_warnings
async def test_the_configuration_is_read_only() -> None:
    async with connected(device()) as guest:
        await guest.refused(fe.SET_CONFIG, struct.pack("<III", 0, 1, 0) + b"x")


async def test_writes_to_the_configuration_reach_the_device() -> None:
    written = []

    class Writable(VirtioFs):
        def write_config(self, offset: int, data: bytes) -> None:
            written.append((offset, data))

    async with connected(Writable("tag", OneFile())) as guest:
        await guest.must(fe.SET_CONFIG, struct.pack("<III", 32, 1, 0) + b"\1")
    assert written == [(32, b"\1")]


async def test_a_driver_binds_again() -> None:
    filesystem = OneFile()
    async with connected(device(filesystem)) as guest:
        await guest.greet()
        for _ in range(3):
            await guest.bind()
            client = FuseClient(guest)
            await client.mount()
            assert (await client.lookup(ROOT, NAME)).ino == FILE
            await guest.unbind()
            assert filesystem.lookups == 1  # a suspended guest comes back for what it had
        await guest.must(fe.SET_FEATURES, struct.pack("<Q", guest.features))
        assert filesystem.lookups == 0


async def test_queues_go_on_after_a_pause() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        for _ in range(3):
            await guest.enable(1, False)
            asked = guest.add(1, [client._header(3, ROOT, 16, None)[1], bytes(16)], [16, 104])
            await trio.testing.wait_all_tasks_blocked()
            assert not guest.answers
            await guest.enable(1)
            await guest.enable(1)
            assert len(await guest.wait(1, asked)) == 120


async def test_the_base_of_a_stopped_queue() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        await FuseClient(guest).mount()
        answer = await guest.get(fe.GET_VRING_BASE, struct.pack("<II", 1, 0))
        assert struct.unpack("<II", answer) == (1, 1)


async def test_enabled_before_it_is_set_up() -> None:
    async with connected(device()) as guest:
        await guest.greet()
        await guest.enable(1)
        await guest.map()
        await guest.must(fe.SET_VRING_CALL, struct.pack("<Q", 1), [guest._theirs[1].fileno()])
        await guest.set_ring(1)
        await guest.must(fe.SET_VRING_KICK, struct.pack("<Q", 1), [guest.kicks[1]])
        await FuseClient(guest).mount()


async def test_another_kick_and_another_call() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        os.close(guest.kicks[1])
        guest.kicks[1] = os.eventfd(0, os.EFD_CLOEXEC)
        await guest.must(fe.SET_VRING_KICK, struct.pack("<Q", 1), [guest.kicks[1]])
        await guest.must(fe.SET_VRING_CALL, struct.pack("<Q", 1), [guest._theirs[1].fileno()])
        await guest.must(fe.SET_VRING_ERR, struct.pack("<Q", 1), [guest._theirs[1].fileno()])
        await client.statfs()


async def test_memory_is_mapped_again_under_running_queues() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        for _ in range(2):
            await guest.map()
            await client.statfs()


async def test_memory_in_two_regions_side_by_side() -> None:
    async with connected(device(OneFile(bytes(range(256)) * 4096))) as guest:
        await guest.set_up()
        half = fe.SIZE * 3 // 4
        table = guest.table(
            (fe.GUEST + half, fe.SIZE - half, fe.GUEST + fe.USER + half, fe.GUEST + half),
            (fe.GUEST, half, fe.GUEST + fe.USER, fe.GUEST),
        )
        await guest.must(fe.SET_MEM_TABLE, table, [guest.file, guest.file])
        client = FuseClient(guest)
        await client.mount()
        guest.rings[1]._place = half - 4096 - 8192  # the answer will lie in both
        data = bytearray(8 * 4096)
        assert await client.read_into(FILE, NO_HANDLE, 0, [memoryview(data)]) == len(data)
        assert data == bytes(range(256)) * 128


async def test_the_channel_of_the_back_end() -> None:
    theirs, ours = socket.socketpair()
    end, channel = socket.socketpair()
    with end, channel:
        async with trio.open_nursery() as nursery:
            backend = Backend(device(), ours)
            backend.config_changed()
            nursery.start_soon(backend.run)
            guest = Guest(theirs, 2, 256)
            for _ in range(2):
                await guest.must(fe.SET_BACKEND_REQ_FD, b"", [channel.fileno()])
            backend.config_changed()
            assert end.recv(100) == struct.pack("<III", 2, 1, 0)
            for _ in range(20_000):  # more than the socket takes
                backend.config_changed()
            end.close()
            backend.config_changed()
            guest.close()


async def test_one_front_end_after_the_other(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with unix_listener(path) as listener:
        assert os.stat(path).st_mode & 0o777 == 0o600
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, device(), listener)
            for _ in range(2):
                connection = socket.socket(socket.AF_UNIX)
                connection.setblocking(False)
                await trio.socket.from_stdlib_socket(connection).connect(path)
                guest = Guest(connection, 2, 256)
                await guest.greet()
                guest.close()
            nursery.cancel_scope.cancel()
    assert not os.listdir(tmp_path)


@logs_warnings
async def test_no_descriptor_left_for_a_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    class Listener:
        calls = 0

        async def accept(self) -> None:
            self.calls += 1
            raise OSError(errno.EMFILE if self.calls < 5 else errno.EINVAL, "out of descriptors")

    listener = Listener()
    monkeypatch.setattr(trio.socket, "from_stdlib_socket", lambda _: listener)
    with pytest.raises(OSError, match="out of descriptors"):
        await serve(device(), listener)  # type: ignore[arg-type]
    assert listener.calls == 5
    assert trio.current_time() >= 4 * vhost_user.ACCEPT_PAUSE_SECONDS


# As nobody should -----------------------------------------------------------------------------


@logs_warnings
@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<III", fe.GET_FEATURES, 2, 0),
        struct.pack("<III", fe.GET_FEATURES, 0, 0),
        struct.pack("<III", fe.GET_FEATURES, 5, 0),
        struct.pack("<III", fe.SET_FEATURES, 1, 4097),
        struct.pack("<III", fe.SET_FEATURES, 1, 2**32 - 1),
        struct.pack("<III", fe.SET_FEATURES, 1, 7) + bytes(7),
        struct.pack("<III", fe.SET_FEATURES, 1, 0),
        struct.pack("<IIIII", fe.SET_VRING_NUM, 1, 8, 2, 256),
        struct.pack("<IIIII", fe.SET_VRING_ENABLE, 1, 8, 2**32 - 1, 1),
        struct.pack("<IIIII", fe.GET_VRING_BASE, 1, 8, 2, 0),
        struct.pack("<IIIQ", fe.SET_VRING_KICK, 1, 8, 0),
        struct.pack("<IIIQ", fe.SET_VRING_CALL, 1, 8, 2 | 0x100),
        struct.pack("<IIIIII", fe.GET_CONFIG, 1, 12, 0, 1, 0),
        struct.pack("<III", fe.GET_CONFIG, 1, 11) + bytes(11),
        struct.pack("<IIIII", fe.SET_MEM_TABLE, 1, 8, 1, 0),
        struct.pack("<IIIII", fe.SET_MEM_TABLE, 1, 8, 0, 0),
        struct.pack("<IIIII", fe.SET_MEM_TABLE, 1, 8, 2**32 - 1, 0),
        struct.pack("<III", fe.SET_BACKEND_REQ_FD, 1, 0),
    ],
)
async def test_what_the_protocol_does_not_allow_ends_the_connection(data: bytes) -> None:
    async with connected(device()) as guest:
        await guest.greet()
        await guest.send_bytes(data)
        await hung_up(guest)


@logs_warnings
async def test_a_message_cut_short() -> None:
    async with connected(device()) as guest:
        await guest.send_bytes(b"\1\0\0", [guest.file])
        guest.socket.shutdown(socket.SHUT_WR)
        await hung_up(guest)


@logs_warnings
async def test_unknown_requests_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(device()) as guest:
        for request in (0, 6, 7, 19, 99, 2**32 - 1):
            await guest.refused(request)
            await guest.send(request)
        await guest.must(fe.RESET_OWNER)
    assert len(caplog.records) == 1  # a log that anyone can fill is of no use


@logs_warnings
@pytest.mark.parametrize("count", [9, 64, 253])
async def test_too_many_descriptors(count: int) -> None:
    async with connected(device()) as guest:
        await guest.send(fe.SET_MEM_TABLE, guest.table(), [guest.file] * count)
        await hung_up(guest)


@logs_warnings
async def test_descriptors_with_every_byte() -> None:
    async with connected(device()) as guest:
        for byte in struct.pack("<III", fe.GET_FEATURES, 1, 0):
            with contextlib.suppress(BrokenPipeError):
                await guest.send_bytes(bytes([byte]), [guest.file])
        await hung_up(guest)


async def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    async with connected(device()) as guest:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            await guest.must(fe.SET_OWNER, b"", [guest.file] * 8)
        assert len(os.listdir("/proc/self/fd")) == before


def _pipe() -> list[int]:
    return list(os.pipe())


def _file() -> list[int]:
    with tempfile.TemporaryFile() as file:
        return [os.dup(file.fileno())]


def _path() -> list[int]:
    return [os.open("/", os.O_PATH)]


def _zero() -> list[int]:
    return [os.open("/dev/zero", os.O_RDWR)]


@logs_warnings
@pytest.mark.parametrize("make", [_pipe, _file, _path, _zero])
async def test_descriptors_of_the_wrong_kind(make: Callable[[], list[int]]) -> None:
    made = make()
    async with connected(device()) as guest:
        await guest.set_up()
        await FuseClient(guest).mount()
        await guest.refused(fe.SET_VRING_KICK, struct.pack("<Q", 1), made[:1])
        await guest.refused(fe.SET_BACKEND_REQ_FD, b"", made[:1])
        await guest.refused(fe.SET_MEM_TABLE, guest.table((0, 4096, 0, 0)), made[:1])
        # A call descriptor may be anything: what cannot be written to is not written to.
        await guest.request(fe.SET_VRING_CALL, struct.pack("<Q", 1), made[:1])
        await guest.must(fe.SET_VRING_KICK, struct.pack("<Q", 1), [guest.kicks[1]])
        _, header = FuseClient(guest)._header(17, ROOT, 0, None)
        guest.add(1, [header], [16, 80])
        await trio.testing.wait_all_tasks_blocked()
        assert [len(data) for _, data in guest.rings[1].collect()] == [96]
    for descriptor in made:
        os.close(descriptor)


@logs_warnings
async def test_a_queue_without_kicks_is_refused() -> None:
    async with connected(device()) as guest:
        await guest.refused(fe.SET_VRING_KICK, struct.pack("<Q", 0x100))


@logs_warnings
@pytest.mark.parametrize("taken", [1 << 0, 1 << 31, 1 << 63, (1 << 64) - 1])
async def test_features_that_were_not_offered(taken: int) -> None:
    async with connected(device()) as guest:
        await guest.refused(fe.SET_FEATURES, struct.pack("<Q", taken))
        await guest.refused(fe.SET_PROTOCOL_FEATURES, struct.pack("<Q", taken))


G, S = fe.GUEST, fe.SIZE


@logs_warnings
@pytest.mark.parametrize(
    "regions",
    [
        [(G, 0, G, G)],
        [(G, S + 1, G, G)],
        [(G, S, G, G + 1)],
        [(G, S, G, G + 4096)],
        [(G, 2**64 - 1, G, G)],
        [(G, 2**64 - G, G, G)],
        [(G, S, G, 2**64 - 4096)],
        [(G, S, G, 2**63)],
        [(2**64 - 4096, S, G, G)],
        [(G, S, G, G), (G, S, G, G)],
        [(G, S, G, G), (G + S - 4096, 8192, G, 0)],
    ],
)
async def test_memory_that_cannot_be(regions: list[tuple[int, int, int, int]]) -> None:
    async with connected(device()) as guest:
        await guest.refused(fe.SET_MEM_TABLE, guest.table(*regions), [guest.file] * len(regions))
        await guest.refused(fe.SET_MEM_TABLE, guest.table(*regions), [guest.file] * len(regions))
        await guest.set_up()
        await FuseClient(guest).mount()
        await guest.refused(fe.SET_MEM_TABLE, guest.table(*regions), [guest.file] * len(regions))
        await FuseClient(guest).mount()


@logs_warnings
async def test_memory_of_a_file_cut_short() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        os.ftruncate(guest.file, fe.GUEST)
        await guest.refused(fe.SET_MEM_TABLE, guest.table((G, S, G, G)), [guest.file])
        os.ftruncate(guest.file, fe.GUEST + fe.SIZE)


@logs_warnings
async def test_memory_without_the_rings() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        await guest.refused(fe.SET_MEM_TABLE, guest.table((G, 4096, G, G)), [guest.file])
        await guest.refused(fe.SET_MEM_TABLE, guest.table((G, 4096, G, G)), [guest.file])


@logs_warnings
@pytest.mark.parametrize(
    ("size", "shift"),
    [(0, 0), (3, 0), (255, 0), (2048, 0), (2**32 - 1, 0), (256, 1), (256, -S), (256, S), (256, 2**63), (256, 8)],
)
async def test_rings_that_cannot_be(size: int, shift: int) -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        await guest.unbind()
        desc, avail, used = (address + fe.USER + shift for address in guest.rings[1].addresses)
        await guest.must(fe.SET_VRING_NUM, struct.pack("<II", 1, size))
        await guest.must(fe.SET_VRING_ADDR, struct.pack("<IIQQQQ", 1, 0, desc, used, avail, 0))
        await guest.refused(fe.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
        await guest.set_ring(1)
        await guest.enable(1)
        await FuseClient(guest).mount()


@logs_warnings
async def test_a_front_end_that_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = socket.socketpair()
    theirs.setblocking(False)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Backend(device(), ours).run)
            end = trio.socket.from_stdlib_socket(theirs)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    await end.send(struct.pack("<III", fe.GET_FEATURES, 1, 0) * 1000)


@logs_warnings
async def test_a_guest_that_breaks_its_ring_stops_that_queue_alone() -> None:
    async with connected(device()) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        guest.rings[0].set_index(guest.rings[0].offered + 257)
        guest.kick(0)
        await trio.testing.wait_all_tasks_blocked()
        await client.statfs()
        guest.rings[1].descriptor(7, 0, 1, 0)
        guest.rings[1].offer(7)
        guest.kick(1)
        await trio.testing.wait_all_tasks_blocked()
        await guest.unbind()
        await guest.bind()
        await FuseClient(guest).mount()


@logs_warnings
async def test_a_bug_in_a_device_stops_its_queue_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(VirtioFs):
        def reset(self) -> None:
            raise ZeroDivisionError

    broken = Buggy("tag", OneFile())
    broken.session.handle = lambda *_: 1 // 0  # type: ignore[method-assign,assignment]
    async with connected(device()) as other:
        await other.set_up()
        async with connected(broken) as guest:
            await guest.set_up()
            guest.add(1, [b"x"], [1])
            await trio.testing.wait_all_tasks_blocked()
            await guest.must(fe.SET_OWNER)
        await FuseClient(other).mount()
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 3
    caplog.clear()  # the tracebacks hold the guest's memory


@logs_warnings
async def test_a_bug_in_a_device_ends_its_connection_alone() -> None:
    class Buggy(VirtioFs):
        def config(self) -> bytes:
            raise ZeroDivisionError

    async with connected(Buggy("tag", OneFile())) as guest:
        await guest.send(fe.GET_CONFIG, struct.pack("<III", 0, 1, 0) + b"\0")
        await hung_up(guest)


async def test_hanging_up_during_a_slow_request() -> None:
    filesystem = Slow()
    async with connected(device(filesystem)) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        for _ in range(5):
            _, header = client._header(15, FILE, 40, None)
            guest.add(1, [header, struct.pack("<QQIIQII", 0, 0, 8, 0, 0, 0, 0)], [16, 8])
        await filesystem.until_reading(5)
        before = filesystem.disconnects
    assert filesystem.cancelled == 5
    assert filesystem.disconnects == before + 1
