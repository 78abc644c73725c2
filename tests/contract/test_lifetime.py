"""What a filesystem does beside answering: it lives as long as it is served, and its failures are its own."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.contract.providers import FILE, NAME, OneFile
from tests.fuse.fuse_client import FuseClient
from tests.virtio.frontend import connected
from umlfs.filesystem import ROOT
from umlfs.lifetime import Tasks
from umlfs.virtio.fs import VirtioFs
from umlfs.virtio.slot import Slot


class Busy(OneFile):
    """Does something beside answering, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = Tasks("busy")
        self.lives: list[str] = []
        self.fail = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.tasks.running():
            self.tasks.start(self.work)
            yield

    @property
    def failure(self) -> OSError | None:
        return self.tasks.failure

    async def work(self) -> None:
        self.lives.append("begun")
        try:
            await self.fail.wait()
            raise ZeroDivisionError("a bug")
        finally:
            self.lives.append("ended")


@pytest.mark.logs_warnings
async def test_a_failing_task_is_answered_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    filesystem = Busy()
    async with connected(VirtioFs("tag", filesystem)) as guest:
        await guest.set_up()
        client = FuseClient(guest)
        await client.mount()
        assert (await client.lookup(ROOT, NAME)).ino == FILE
        filesystem.fail.set()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output") as caught:
                await client.getattr(ROOT)
            assert caught.value.errno == errno.EIO
    (record,) = [record for record in caplog.records if record.name == "umlfs.lifetime"]
    assert "busy" in record.getMessage()


async def test_tasks_end_with_the_device() -> None:
    filesystem = Busy()
    for _ in range(2):
        filesystem.lives.clear()
        async with connected(VirtioFs("tag", filesystem)) as guest:
            await guest.set_up()
            await FuseClient(guest).mount()
            assert filesystem.lives == ["begun"]
        assert filesystem.lives == ["begun", "ended"]


async def test_what_is_in_a_slot_runs_while_it_is_there() -> None:
    slot, first, second = Slot("slot0"), Busy(), Busy()
    slot.insert(first)
    async with connected(slot) as guest:
        await guest.set_up()
        await FuseClient(guest).mount()
        assert first.lives == ["begun"]
        await slot.take_out()
        assert first.lives == ["begun", "ended"]
        slot.insert(second)
        await trio.testing.wait_all_tasks_blocked()
        assert second.lives == ["begun"]
    assert second.lives == ["begun", "ended"]


async def test_running_within_running_and_nothing_outside() -> None:
    tasks, ended = Tasks("any"), trio.Event()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    assert not tasks.start(work)
    async with tasks.running():
        async with tasks.running():
            assert tasks.start(work)
            await trio.testing.wait_all_tasks_blocked()
        assert tasks.alive
        assert not ended.is_set()
    assert ended.is_set()
    assert not tasks.start(work)


async def test_an_exception_from_within_comes_out_as_it_is() -> None:
    tasks = Tasks("any")

    async def serve() -> None:
        async with tasks.running():
            tasks.start(trio.sleep_forever)
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await serve()
