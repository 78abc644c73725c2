"""Running queues: who works on them, in what order, and what happens when they stop."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from tests.compiled import compiled
from tests.contract.providers import FILE, NAME, OneFile, Slow
from tests.fuse.fuse_client import FuseClient
from tests.virtio import frontend as fe
from tests.virtio.frontend import Guest, connected
from umlfs.filesystem import ROOT
from umlfs.host.waiting import noticing_waits
from umlfs.virtio import vring
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.polling import Polling
from umlfs.virtio.rings import VERSION
from umlfs.virtio.virtqueue import Virtqueue

READ = struct.pack("<QQIIQII", 0, 0, 8, 0, 0, 0, 0)


Rings = tuple[type[Virtqueue], type[Polling]]


@pytest.fixture(autouse=True, params=["reference", "compiled"])
def rings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rings:
    """Everything here holds of both."""
    chosen: Rings = (Virtqueue, Polling)
    if request.param == "compiled":
        module = compiled("umlfs.virtio._virtqueue", VERSION)
        chosen = module.Virtqueue, module.Polling
    monkeypatch.setattr(vring, "Ring", chosen[0])
    monkeypatch.setattr(vring, "Polling", chosen[1])
    return chosen


async def mounted(guest: Guest) -> FuseClient:
    await guest.set_up()
    client = FuseClient(guest)
    await client.mount()
    return client


def add_read(guest: Guest, client: FuseClient) -> int:
    """Offer a read of the file; returns the head."""
    _, header = client._header(15, FILE, 40, None)
    return guest.add(1, [header, READ], [16, 8])


async def test_a_slow_read_delays_nobody() -> None:
    filesystem = Slow()
    async with connected(VirtioFs("tag", filesystem)) as guest:
        client = await mounted(guest)
        heads = [add_read(guest, client) for _ in range(3)]
        await filesystem.until_reading(3)
        for _ in range(10):
            await client.getattr(FILE)
            assert (await client.lookup(ROOT, NAME)).ino == FILE
        assert filesystem.reading == 3
        assert not guest.answers
        filesystem.go.set()
        for head in heads:
            assert (await guest.wait(1, head))[16:] == b"contents"


async def test_as_many_at_once_as_the_ring_holds() -> None:
    filesystem = Slow()
    async with connected(VirtioFs("tag", filesystem), ring_size=256) as guest:
        client = await mounted(guest)
        heads = [add_read(guest, client) for _ in range(256 // 4)]  # four descriptors each
        await filesystem.until_reading(len(heads))
        filesystem.go.set()
        answers = {await guest.wait(1, head) for head in heads}
        assert len(answers) == len(heads)
        assert filesystem.most == len(heads)


async def test_many_requests_from_many_tasks() -> None:
    filesystem = OneFile(bytes(range(200)))
    async with connected(VirtioFs("tag", filesystem)) as guest:
        client = await mounted(guest)

        async def work(offset: int) -> None:
            data = bytearray(1)
            for place in range(offset, 200, 20):
                await client.lookup(ROOT, NAME)
                assert await client.read_into(FILE, 0, place, [memoryview(data)]) == 1
                assert data[0] == place
                client.forget(FILE, 1)

        async with trio.open_nursery() as nursery:
            for offset in range(20):
                nursery.start_soon(work, offset)
        await trio.testing.wait_all_tasks_blocked()
        assert filesystem.lookups == 0


async def test_requests_that_do_not_wait_keep_their_order() -> None:
    order = []

    class Ordered(OneFile):
        async def write_from(
            self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview], kill_set_id: bool = False
        ) -> int:
            order.append(offset)
            if offset % 5 == 0:
                await trio.testing.wait_all_tasks_blocked(0.0)
            return len(buffers[0])

    async with connected(VirtioFs("tag", Ordered())) as guest:
        client = await mounted(guest)
        heads = []
        for offset in range(50):
            _, header = client._header(16, FILE, 41, None)
            heads.append(guest.add(1, [header, struct.pack("<QQIIQII", 0, offset, 1, 0, 0, 0, 0), b"x"], [16, 8]))
        for head in heads:
            await guest.wait(1, head)
    assert order == list(range(50))


async def test_stopping_abandons_what_waits() -> None:
    filesystem = Slow()
    async with connected(VirtioFs("tag", filesystem)) as guest:
        client = await mounted(guest)
        for _ in range(4):
            add_read(guest, client)
        await filesystem.until_reading(4)
        await guest.enable(1, False)
        assert filesystem.cancelled == 4
        assert not guest.rings[1].collect()


async def test_a_stopped_queue_leaves_the_guest_its_memory() -> None:
    """What a thread has begun cannot be abandoned: the guest hears that the queue is stopped when it is done."""
    go, stopped = threading.Event(), trio.Event()

    class Threaded(OneFile):
        async def read_into(self, ino: int, handle: int, offset: int, buffers: Sequence[memoryview]) -> int:
            def read() -> None:
                go.wait(10)
                buffers[0][:4] = b"late"

            await trio.to_thread.run_sync(read)
            return 4

    async with connected(VirtioFs("tag", Threaded())) as guest:
        client = await mounted(guest)
        add_read(guest, client)

        async def stop() -> None:
            await guest.enable(1, False)
            stopped.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            await trio.testing.wait_all_tasks_blocked()
            assert not stopped.is_set()
            go.set()
        memory = bytes(guest.memory)
        await guest.get(fe.GET_FEATURES)
        assert bytes(guest.memory) == memory


async def test_an_idle_guest_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += 1

    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        await client.statfs()
        await trio.testing.wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(3600)
        trio.lowlevel.remove_instrument(steps)
        assert steps.count == 1  # our own


async def test_kicks_without_requests(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, ring = 0, rings[0]

    def counted(self: Virtqueue) -> None:
        nonlocal turns
        turns += 1
        ring.resume_kicks(self)

    monkeypatch.setattr(vring, "Ring", type("Counting", (ring,), {"resume_kicks": counted}))
    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        for _ in range(1000):
            guest.kick(0)
            guest.kick(1)
        await client.statfs()
        assert turns < 100  # an eventfd is one kick, however often it was kicked


async def test_a_kick_that_never_ends(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    turns, ring = 0, rings[0]

    def counted(self: Virtqueue) -> None:
        nonlocal turns
        turns += 1
        ring.resume_kicks(self)

    monkeypatch.setattr(vring, "Ring", type("Counting", (ring,), {"resume_kicks": counted}))
    async with connected(VirtioFs("tag", OneFile())) as guest:
        endless = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        os.eventfd_write(endless, 1 << 63)
        os.close(guest.kicks[1])
        guest.kicks[1] = endless
        client = await mounted(guest)
        await trio.sleep(1)
        turns = 0
        await trio.sleep(1)
        assert turns <= 1 / vring.VAIN_KICK_SECONDS + 1
        await client.statfs()


async def test_a_guest_that_wants_no_interrupts() -> None:
    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        await trio.testing.wait_all_tasks_blocked(cushion=0.01)  # the reminder of the mount's answer came too
        guest.rings[1].interrupts(False)
        head = add_read(guest, client)
        await trio.testing.wait_all_tasks_blocked()
        assert not guest.answers
        assert [found for found, _ in guest.rings[1].collect()] == [head]
        guest.rings[1].interrupts(True)
        await client.statfs()


@pytest.mark.parametrize("poll_seconds", [0.0, 1e-4])
async def test_a_guest_that_missed_an_interrupt(
    rings: Rings, poll_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets it once more, whether or not its next request was looked for, and not more often."""
    monkeypatch.setattr(vring, "Polling", type("Always", (rings[1],), {"seconds": lambda _: poll_seconds}))
    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        await trio.testing.wait_all_tasks_blocked(cushion=0.01)
        seen = guest.interrupts
        add_read(guest, client)
        await trio.testing.wait_all_tasks_blocked(cushion=0.01)
        assert guest.interrupts == seen + 2


async def test_what_nobody_waits_for_is_told_later() -> None:
    """Forgets in a row are told of together: what has many, or is silent, hears of all."""
    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        await trio.testing.wait_all_tasks_blocked(cushion=0.01)
        seen = guest.interrupts
        many = guest.rings[0].size // 2
        for _ in range(many):  # in two descriptors each
            client.forget(FILE, 0)
        await trio.testing.wait_all_tasks_blocked(cushion=0.01)
        assert guest.interrupts - seen <= many // vring.UNTOLD_MAX + 2
        assert len([queue for queue, _ in guest.answers if queue == 0]) == many


async def test_a_guest_that_does_not_look() -> None:
    """The socket of the interrupts is full."""
    async with connected(VirtioFs("tag", OneFile())) as guest:
        client = await mounted(guest)
        with contextlib.suppress(BlockingIOError):
            while guest._theirs[1].send(bytes(4096), socket.MSG_DONTWAIT):
                pass
        await client.statfs()


async def test_kicks_are_asked_for_only_when_nobody_looks() -> None:
    filesystem = Slow()
    async with connected(VirtioFs("tag", filesystem)) as guest:
        client = await mounted(guest)
        await trio.testing.wait_all_tasks_blocked()
        assert guest.rings[1].wants_kick
        add_read(guest, client)
        await filesystem.until_reading(1)
        await trio.testing.wait_all_tasks_blocked()
        assert guest.rings[1].wants_kick


async def test_what_was_served_is_counted() -> None:
    filesystem = Slow()
    device = VirtioFs("tag", filesystem)
    async with connected(device) as guest:
        client = await mounted(guest)
        await trio.testing.wait_all_tasks_blocked()
        before = device.statistics.requests
        head = add_read(guest, client)
        await filesystem.until_reading(1)
        await client.getattr(FILE)
        await trio.testing.wait_all_tasks_blocked()
        assert device.statistics.requests == before + 1
        filesystem.go.set()
        await guest.wait(1, head)
        await trio.testing.wait_all_tasks_blocked()
    it = device.statistics
    assert (it.requests, it.read_bytes, it.written_bytes) == (before + 2, len(b"contents"), 0)
    assert it.seconds >= it.longest >= it.mean > 0


# noticing_waits -------------------------------------------------------------------------------


async def test_what_does_not_wait_is_not_noticed() -> None:
    async def work() -> int:
        return 7

    noticed: list[None] = []
    assert await noticing_waits(work(), lambda: noticed.append(None)) == 7
    assert not noticed


async def test_the_first_wait_is_noticed() -> None:
    async def work() -> int:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return 7

    noticed: list[None] = []
    assert await noticing_waits(work(), lambda: noticed.append(None)) == 7
    assert len(noticed) == 1


@pytest.mark.parametrize("waits", [0, 1, 2])
async def test_errors_pass_through(waits: int) -> None:
    async def work() -> int:
        for _ in range(waits):
            await trio.lowlevel.checkpoint()
        raise KeyError

    with pytest.raises(KeyError):
        await noticing_waits(work(), lambda: None)


async def test_cancellation_reaches_the_work() -> None:
    seen: list[Any] = []

    async def work() -> int:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise
        return 0

    with trio.CancelScope() as scope:
        await noticing_waits(work(), scope.cancel)
    assert seen == ["cancelled"]
    assert scope.cancelled_caught


async def test_cancellation_may_be_survived() -> None:
    async def work() -> int:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return 7

    assert await noticing_waits(work(), lambda: None) == 7
