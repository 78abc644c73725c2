"""Captive guests from threads and from asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.captive import EventKind, Limits, aio, blocking
from tests.captive.trees import Notes
from umlfs.errors import UmlError, UsageError

pytestmark = pytest.mark.guest
SMALL = Limits(memory=96 << 20)


def test_threads() -> None:
    notes = {"milk": b"two litres\n"}
    with blocking.captive(mounts={"/app": Notes(notes)}, limits=SMALL) as guest:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda n: guest.run(["echo", str(n)]).stdout, range(8)))
        assert found == [b"%d\n" % n for n in range(8)]
        with guest.start(["cat"]) as process:
            process.send(b"abc")
            process.end_input()
            assert (process.receive(), process.receive(), process.wait()) == (b"abc", b"", 0)
        assert guest.files.read("/app/milk") == b"two litres\n"
        assert list(guest.files.walk("/app")) == [("/app", [], ["milk"])]
        assert guest.login("root", "wrong") is None
        with pytest.raises(subprocess.TimeoutExpired):
            guest.run(["sleep", "1000"], timeout=0.5)
        guest.kill()
        event = guest.next_event()
        assert event is not None
        assert event.kind is EventKind.EXIT
        assert guest.next_event() is None
    with pytest.raises(UmlError, match="gone"):
        guest.run(["true"])
    assert not [thread for thread in threading.enumerate() if thread.name == "captive guests"]


def test_threads_hear_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="unknown kind"), blocking.captive(root="nosuch:/"):
        pytest.fail("it came up")


def test_asyncio() -> None:
    asyncio.run(_asyncio())


async def _asyncio() -> None:
    async with aio.captive(mounts={"/app": Notes({"milk": b"two\n"})}, limits=SMALL) as guest:
        task = asyncio.create_task(guest.run(["sh", "-c", "echo $$ >/tmp/pid; exec sleep 1000"]))
        while not (await guest.files.exists("/tmp/pid")) or not (pid := (await guest.files.read("/tmp/pid")).strip()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            while await guest.files.exists(f"/proc/{pid.decode()}"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        done = await asyncio.gather(*(guest.run(["cat", "/app/milk"]) for _ in range(3)))
        assert [each.stdout for each in done] == [b"two\n"] * 3
        async with await guest.start(["cat"]) as process:
            await process.send(b"abc")
            assert await process.receive() == b"abc"
        assert [each async for each in guest.files.walk("/app")] == [("/app", [], ["milk"])]
