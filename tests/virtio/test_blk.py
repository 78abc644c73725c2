"""virtio-blk without a guest: requests as descriptor chains, those of a hostile one too."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.block import check_block_device, read
from umlfs.block import BlockDevice, Extent
from umlfs.blocks.raw import open_raw
from umlfs.buffers import part, total
from umlfs.errors import UsageError
from umlfs.virtio.blk import (
    SEGMENTS,
    SERIAL_MAX,
    UNMAP_SECTORS,
    UNMAP_SEGMENTS,
    RequestKind,
    Status,
    VirtioBlk,
)
from umlfs.virtio.virtqueue import Chain

SIZE = 256 << 10
OK, ERROR, UNSUPPORTED = Status
F_RO, F_FLUSH, F_DISCARD, F_WRITE_ZEROES = 1 << 5, 1 << 9, 1 << 13, 1 << 14


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def ranges(*found: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *each) for each in found)


async def ask(disk: VirtioBlk, request: Sequence[bytes], *room: int) -> tuple[int, bytes, int]:
    """One request of these pieces, with room for answers of these lengths: status, what was written, how much."""
    answer = [memoryview(bytearray(b"\xa5" * length)) for length in room]
    written = await disk.handle(0, Chain(7, [memoryview(piece) for piece in request], answer))
    data = b"".join(answer)
    return data[-1], data[:-1], written


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


class Failing(BlockDevice):
    """A device on a host that is in trouble."""

    size = SIZE

    def __init__(self, number: int) -> None:
        self.number = number

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        raise OSError(self.number, "in trouble")

    read_into = write_from

    async def flush(self) -> None:
        raise OSError(self.number, "in trouble")


class OverVirtio(BlockDevice):
    """The device that a guest's driver sees, for the contract."""

    def __init__(self, disk: VirtioBlk, cuts: random.Random) -> None:
        self.disk = disk
        self.size = struct.unpack_from("<Q", disk.config())[0] * 512
        self.can_discard = bool(disk.features & F_DISCARD)
        self.cuts = cuts

    async def _do(self, kind: RequestKind, offset: int, data: Sequence[memoryview], room: Sequence[memoryview]) -> None:
        if offset < 0 or offset % 512:
            raise OSError(errno.EINVAL, "not a sector")
        head = memoryview(header(kind, offset // 512))
        cut = self.cuts.randrange(17)
        status = memoryview(bytearray(1))
        request = [view for view in (head[:cut], head[cut:]) if view]
        if cut < 16 and data:  # the header may end within the first piece of data
            request = [head[:cut], memoryview(bytes(head[cut:]) + bytes(data[0])), *data[1:]]
        await self.disk.handle(0, Chain(0, [*request, *([] if cut < 16 and data else data)], [*room, status]))
        if status[0] != OK:
            raise OSError(errno.EINVAL, "refused")

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._do(RequestKind.READ, offset, [], buffers)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._do(RequestKind.WRITE, offset, buffers, [])

    async def flush(self) -> None:
        await self._do(RequestKind.FLUSH, 0, [], [])

    async def discard(self, offset: int, length: int) -> None:
        await self._range(RequestKind.DISCARD, offset, length, 0)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self._range(RequestKind.WRITE_ZEROES, offset, length, int(unmap))

    async def _range(self, kind: RequestKind, offset: int, length: int, flags: int) -> None:
        if offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")
        await self._do(kind, 0, [memoryview(ranges((offset // 512, length // 512, flags)))], [])

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """Nothing that a guest can ask for: the device's own."""
        return await self.disk.device.extents(offset, length)

    async def close(self) -> None:
        await self.disk.device.close()


async def test_contract_through_the_protocol(image: Path) -> None:
    async def open_device() -> BlockDevice:
        return OverVirtio(VirtioBlk(open_raw(image)), random.Random(1))

    await check_block_device(open_device)


async def test_config_says_what_there_is(image: Path) -> None:
    disk = VirtioBlk(open_raw(image), serial="SER")
    fields = struct.unpack("<QIIHBBIBBHIBBHIIIIIB3x", disk.config())
    assert (fields[0], fields[2], fields[6]) == (SIZE // 512, SEGMENTS, 512)
    assert fields[14:16] == fields[17:19] == (UNMAP_SECTORS, UNMAP_SEGMENTS)
    assert disk.features & (F_RO | F_FLUSH | F_DISCARD | F_WRITE_ZEROES) == F_FLUSH | F_DISCARD | F_WRITE_ZEROES
    await disk.device.close()


@pytest.mark.logs_warnings
async def test_odd_sizes_are_rounded_up(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"x" * 1000)
    disk = VirtioBlk(open_raw(path))
    assert struct.unpack_from("<Q", disk.config())[0] == 2
    assert await ask(disk, [header(RequestKind.READ, 1)], 512, 1) == (OK, b"x" * 488 + bytes(24), 513)
    disk_full = (await ask(disk, [header(RequestKind.WRITE, 1), b"y" * 512], 1))[0]
    assert disk_full == ERROR
    assert (await ask(disk, [header(RequestKind.WRITE, 1), b"y" * 488 + bytes(24)], 1))[0] == OK
    await disk.device.close()
    assert path.read_bytes() == b"x" * 512 + b"y" * 488


@pytest.mark.parametrize("room", [(20, 1), (21,), (7, 13, 1), (30, 1)])
async def test_serial(image: Path, room: tuple[int, ...]) -> None:
    disk = VirtioBlk(open_raw(image), serial="SERIAL")
    status, data, written = await ask(disk, [header(RequestKind.GET_ID)], *room)
    assert (status, data[:SERIAL_MAX], written) == (OK, b"SERIAL".ljust(20, b"\0"), 21)
    assert (await ask(disk, [header(RequestKind.GET_ID)], 19, 1))[0] == ERROR
    await disk.device.close()


async def test_serial_is_limited(image: Path) -> None:
    device = open_raw(image)
    with pytest.raises(UsageError, match="longer than 20 bytes"):
        VirtioBlk(device, serial="x" * 21)
    VirtioBlk(device, serial="\udcff" * 20)
    await device.close()


@pytest.mark.parametrize("why", ["asked for", "by the device"])
async def test_read_only_is_kept_whatever_the_guest_sends(image: Path, why: str) -> None:
    before = content(image)
    device = open_raw(image, read_only=why == "by the device")
    disk = VirtioBlk(device, read_only=why == "asked for")
    assert disk.features & (F_RO | F_DISCARD | F_WRITE_ZEROES) == F_RO
    for request in (
        [header(RequestKind.WRITE), bytes(512)],
        [header(RequestKind.WRITE) + bytes(512)],
        [header(RequestKind.DISCARD), ranges((0, 8, 0))],
        [header(RequestKind.WRITE_ZEROES), ranges((0, 8, 1))],
        [header(14), ranges((0, 8, 1))],
    ):
        assert (await ask(disk, request, 1))[0] in (ERROR, UNSUPPORTED)
    assert (await ask(disk, [header(RequestKind.FLUSH)], 1))[0] == OK
    assert await ask(disk, [header(RequestKind.READ)], 512, 1) == (OK, before[:512], 513)
    await device.close()
    assert content(image) == before


async def test_without_discard(image: Path) -> None:
    disk = VirtioBlk(open_raw(image), discard=False)
    assert not disk.features & (F_DISCARD | F_WRITE_ZEROES)
    assert struct.unpack("<QIIHBBIBBHIBBHIIIIIB3x", disk.config())[14:19] == (0,) * 5
    for kind in (RequestKind.DISCARD, RequestKind.WRITE_ZEROES):
        assert (await ask(disk, [header(kind), ranges((0, 8, 0))], 1))[0] == UNSUPPORTED
    await disk.device.close()


async def test_nonsense_is_an_error(image: Path) -> None:
    before = content(image)
    disk = VirtioBlk(open_raw(image))
    for request, room in (
        ([], (1,)),
        ([header(RequestKind.READ)[:15]], (512, 1)),
        ([header(RequestKind.READ, SIZE // 512)], (512, 1)),
        ([header(RequestKind.READ, (1 << 64) - 1)], (512, 1)),
        ([header(RequestKind.READ)], (511, 1)),
        ([header(RequestKind.WRITE), b"x" * 100], (1,)),
        ([header(RequestKind.WRITE, SIZE // 512 - 1), b"x" * 1024], (1,)),
        ([header(RequestKind.DISCARD)], (1,)),
        ([header(RequestKind.DISCARD), b"x" * 15], (1,)),
        ([header(RequestKind.DISCARD), ranges((0, UNMAP_SECTORS + 1, 0))], (1,)),
        ([header(RequestKind.DISCARD), ranges((0, 1 << 31, 0))], (1,)),
        ([header(RequestKind.DISCARD), ranges((SIZE // 512 - 8, 16, 0))], (1,)),
        ([header(RequestKind.WRITE_ZEROES), ranges(((1 << 64) - 1, 1, 0))], (1,)),
        ([header(RequestKind.WRITE_ZEROES), ranges(*[(0, 8, 0)] * (UNMAP_SEGMENTS + 1))], (1,)),
    ):
        assert (await ask(disk, request, *room))[0] == ERROR
    assert (await ask(disk, [header(99)], 1))[0] == UNSUPPORTED
    assert await disk.handle(0, Chain(0, [memoryview(header(RequestKind.READ))], [])) == 0
    await disk.device.close()
    assert content(image) == before


async def test_no_more_is_copied_than_a_request_means(image: Path) -> None:
    """The same memory a thousand times in one chain: joined it would be more than the host has."""
    huge = memoryview(bytearray(16 << 20))
    disk = VirtioBlk(open_raw(image))
    for first in (header(RequestKind.WRITE), header(RequestKind.DISCARD), b"x"):
        chain = Chain(0, [memoryview(first), *[huge] * 1000], [memoryview(bytearray(1))])
        await disk.handle(0, chain)
        assert chain.writable[0][0] != OK
    await disk.device.close()


@pytest.mark.logs_warnings
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
async def test_the_host_s_trouble_is_told_once(number: int, caplog: pytest.LogCaptureFixture) -> None:
    disk = VirtioBlk(Failing(number), name="ubda")
    for request, room in (([header(RequestKind.WRITE), bytes(512)], (1,)), ([header(RequestKind.READ)], (512, 1))) * 3:
        assert (await ask(disk, request, *room))[0] == ERROR
    assert (await ask(disk, [header(RequestKind.FLUSH)], 1))[0] == ERROR
    assert [record.getMessage() for record in caplog.records] == [
        "virtio-blk ubda: the guest's request fails: in trouble"
    ]


async def test_the_guest_s_own_mistakes_are_not_logged(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = VirtioBlk(open_raw(image))
    await ask(disk, [header(RequestKind.READ, 1 << 60)], 512, 1)
    await ask(disk, [header(77)], 512, 1)
    assert not caplog.records
    await disk.device.close()


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(0, 40), max_size=4), st.booleans())
def test_any_chain_gets_an_answer(request: list[bytes], room: list[int], real: bool) -> None:
    if real and request:
        kinds = [header(kind) for kind in RequestKind]
        request = [kinds[len(request) % len(kinds)] + request[0], *request[1:]]
    disk = VirtioBlk(Memory())
    answer = [memoryview(bytearray(length)) for length in room if length]
    chain = Chain(0, [memoryview(piece) for piece in request if piece], answer)
    written = trio.run(disk.handle, 0, chain)
    assert 0 <= written <= total(answer)
    assert not answer or answer[-1][-1] in list(Status)


class Memory(BlockDevice):
    """A device in memory."""

    size = 4096

    def __init__(self) -> None:
        self.content = bytearray(self.size)

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        data = b"".join(buffers)
        self.content[offset : offset + len(data)] = data

    async def flush(self) -> None:
        pass

    async def discard(self, offset: int, length: int) -> None:
        self.content[offset : offset + length] = bytes(length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self.discard(offset, length)


async def test_what_is_written_is_read(image: Path) -> None:
    disk = VirtioBlk(open_raw(image))
    data = random.Random(9).randbytes(4096)
    pieces = [bytes(view) for view in part([memoryview(data)], 0, 1000) + part([memoryview(data)], 1000, 3096)]
    assert (await ask(disk, [header(RequestKind.WRITE, 3), *pieces], 1))[0] == OK
    assert await ask(disk, [header(RequestKind.READ, 3)], 1, 2000, 2096) == (OK, data, 4097)
    assert await read(disk.device, 3 * 512, 4096) == data
    await disk.device.close()


async def test_what_was_read_and_written_is_counted(image: Path) -> None:
    disk = VirtioBlk(open_raw(image))
    await ask(disk, [header(RequestKind.READ)], 4096, 1)
    await ask(disk, [header(RequestKind.WRITE), bytes(1024)], 1)
    await ask(disk, [header(RequestKind.READ, SIZE)], 512, 1)
    assert (disk.statistics.read_bytes, disk.statistics.written_bytes) == (4096, 1024)
    await disk.device.close()
