"""A virtio-blk device whose disk is exchanged, with guests that wait, and guests that do not listen."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import trio
import trio.testing

from tests.virtio import frontend as fe
from tests.virtio.frontend import Guest, connected
from tests.virtio.test_blk import ERROR, OK, header
from umlfs.block import BlockDevice
from umlfs.virtio.blk import RequestKind, VirtioBlk
from umlfs.virtio.disk_slot import DiskSlot

SIZE = 8192
CONFIG_CHANGE = struct.pack("<III", 2, 1, 0)


class Slow(BlockDevice):
    """Reads `x`, when it is let go."""

    size = SIZE

    def __init__(self) -> None:
        self.reading = trio.Event()
        self.go = trio.Event()

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self.reading.set()
        await self.go.wait()
        for buffer in buffers:
            buffer[:] = b"x" * len(buffer)


async def capacity(guest: Guest) -> int:
    """In sectors, as the driver reads it."""
    answer = await guest.get(fe.GET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))
    return int(struct.unpack("<III Q", answer)[3])


DONE = b"x" * 512 + bytes([OK])
"""What a read answers. One that fails answers nothing but its status."""


async def read(guest: Guest) -> bytes:
    return await guest.transact([header(RequestKind.READ)], [512, 1])


async def test_a_disk_comes_and_goes() -> None:
    slot = DiskSlot("slot0")
    end, channel = socket.socketpair()
    with end, channel:
        end.setblocking(False)
        async with connected(slot) as guest:
            await guest.set_up()
            await guest.must(fe.SET_BACKEND_REQ_FD, b"", [channel.fileno()])
            assert await capacity(guest) == 0
            assert len(await read(guest)) == 1
            disk = Slow()
            disk.go.set()
            slot.insert(VirtioBlk(disk, name="ubdd"))
            assert (end.recv(100), slot.name) == (CONFIG_CHANGE, "virtio-blk ubdd")
            assert await capacity(guest) == SIZE // 512
            assert await read(guest) == DONE
            assert slot.statistics.read_bytes == 512
            slot.offer(False)
            assert end.recv(100) == CONFIG_CHANGE
            assert await capacity(guest) == 0
            assert await read(guest) == DONE  # it may not have heard of it yet
            await slot.take_out()
            assert len(await read(guest)) == 1
            assert (slot.name, slot.statistics.read_bytes) == ("virtio-blk slot0", 0)


async def test_taken_out_while_a_request_waits() -> None:
    slot, disk, out = DiskSlot("slot0"), Slow(), trio.Event()
    slot.insert(VirtioBlk(disk))

    async def take_out() -> None:
        await slot.take_out()
        out.set()

    async with connected(slot) as guest:
        await guest.set_up()
        head = guest.add(0, [header(RequestKind.READ)], [512, 1])
        await disk.reading.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_out)
            await trio.testing.wait_all_tasks_blocked()
            assert len(await read(guest)) == 1
            assert not out.is_set()
            disk.go.set()
            assert await guest.wait(0, head) == DONE
        assert out.is_set()


async def test_what_no_disk_can_be_asked() -> None:
    """Nothing at all is read, written and flushed; and nobody is told who is not there."""
    slot = DiskSlot("slot0")
    slot.offer(True)
    async with connected(slot) as guest:
        await guest.set_up()
        for request in (header(RequestKind.FLUSH), header(RequestKind.WRITE), header(RequestKind.READ)):
            assert await guest.transact([request], [1]) == bytes([OK])
        assert await guest.transact([header(RequestKind.WRITE) + bytes(512)], [1]) == bytes([ERROR])


def test_what_fits() -> None:
    assert DiskSlot("any").fits_all
    assert not DiskSlot("read-only", read_only=True).fits_all
    assert not DiskSlot("without TRIM", unmap=False).fits_all
