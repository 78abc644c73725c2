"""A virtio-fs device whose filesystem is exchanged, with guests that wait, and guests that do not let go."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from tests.contract.providers import FILE, NAME, OneFile, Slow
from tests.fuse.fuse_client import FuseClient
from tests.virtio.frontend import connected
from tests.virtio.test_vring import add_read
from umlfs.filesystem import ROOT, Entry
from umlfs.virtio.slot import Slot


async def test_empty_until_something_is_inserted() -> None:
    slot = Slot("slot0")
    async with connected(slot) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        with pytest.raises(OSError, match="No such file") as caught:
            await client.lookup(ROOT, NAME)
        assert caught.value.errno == errno.ENOENT
        names: list[bytes] = []

        def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
            names.append(name)
            return True

        await client.readdir(ROOT, 0, 0, add)
        assert not names
        slot.insert(OneFile(), name="data")
        assert (slot.name, slot.mounted) == ("virtio-fs data", False)
        await client.mount()
        assert slot.mounted
        assert (await client.lookup(ROOT, NAME)).ino == FILE


async def test_taken_out_while_requests_wait() -> None:
    """It is there until the last of them is answered, and what comes later does not reach it."""
    slot, filesystem, out = Slot("slot0"), Slow(), trio.Event()
    slot.insert(filesystem)
    async with connected(slot) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        head = add_read(guest, client)
        await filesystem.until_reading(1)
        disconnects = filesystem.disconnects

        async def take_out() -> None:
            await slot.take_out()
            out.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_out)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="Input/output"):
                await client.getattr(ROOT)
            assert not out.is_set()
            assert filesystem.disconnects == disconnects
            filesystem.go.set()
            assert (await guest.wait(1, head))[16:] == b"contents"
        assert filesystem.disconnects == disconnects + 1
        assert slot.name == "virtio-fs slot0"
        assert not slot.mounted


async def test_each_content_is_counted_by_itself() -> None:
    slot = Slot("slot0")
    slot.insert(OneFile())
    async with connected(slot) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        await guest.wait(1, add_read(guest, client))
        assert slot.statistics.read_bytes == len(b"contents")
        await slot.take_out()
        slot.insert(OneFile())
        assert (slot.statistics.read_bytes, slot.statistics.longest) == (0, 0.0)
