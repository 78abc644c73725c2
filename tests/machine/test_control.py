"""The control filesystem, used as the agent in a guest uses it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from runtime.machine.control import REPORT_MAX, ControlFilesystem, Job
from runtime.machine.staging import Staging
from runtime.tty.streams import Collector, Literal
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, Entry


class Failing:
    """A stream of the host that fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        raise OSError(self._number, os.strerror(self._number))

    write_from = read_into


class Waiting:
    """Input that never comes."""

    async def read_into(self, buffers: Sequence[memoryview]) -> int:
        await trio.sleep_forever()
        return 0


async def find(control: ControlFilesystem, path: str) -> int:
    ino = ROOT
    for name in path.split("/"):
        ino = (await control.lookup(ino, name.encode())).ino
    return ino


async def read(control: ControlFilesystem, path: str, size: int = 4096) -> bytes:
    ino = await find(control, path)
    buffer = bytearray(size)
    count = await control.read_into(ino, (await control.open(ino, os.O_RDONLY)).handle, 0, [memoryview(buffer)])
    return bytes(buffer[:count])


async def write(control: ControlFilesystem, path: str, data: bytes) -> int:
    return await control.write_from(await find(control, path), 0, 0, [memoryview(data)])


async def test_a_job_from_end_to_end() -> None:
    control = ControlFilesystem()
    job = Job(Literal(b"in"), out := Collector(100), err := Collector(100))
    control.submit(job, b"script")
    assert not control.ready.is_set()
    assert await read(control, "next") == b"1 pipe pipe pipe\n"
    assert control.ready.is_set()
    assert await read(control, "1/script") == b"script"
    assert await read(control, "1/stdin") == b"in"
    assert await read(control, "1/stdin") == b""
    job.signal("INT")
    assert await read(control, "1/signals") == b"INT\n"
    await write(control, "1/stdout", b"out")
    await write(control, "1/stderr", b"err")
    await write(control, "1/status", b"exit 3\n")
    await write(control, "1/status", b"exit 4\n")
    assert await job.wait() == 3
    assert out.data == b"out"
    assert err.data == b"err"
    job.signal("INT")
    assert await read(control, "1/signals") == b""
    control.retire(job)
    with pytest.raises(FileNotFoundError):
        await find(control, "1/status")


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (Job(), b"1 null null null\n"),
        (Job(Literal(b"")), b"1 pipe null null\n"),
        (Job(stderr=Collector(1)), b"1 null null pipe\n"),
        (Job(None, both := Collector(1), both), b"1 null pipe output\n"),
    ],
)
async def test_what_the_agent_is_told(job: Job, line: bytes) -> None:
    control = ControlFilesystem()
    control.submit(job, b"")
    assert await read(control, "next") == line


async def test_a_terminal() -> None:
    control = ControlFilesystem()
    control.submit(Job(), b"", "/dev/tty1")
    assert await read(control, "next", 4) == b"1 /d"
    assert await read(control, "next") == b"ev/tty1\n"


async def test_a_job_that_is_staged() -> None:
    """The agent is told of it, its shell and its input wait, and then it is as any other. One that is let go of does
    nothing."""
    control = ControlFilesystem()
    staging = Staging(control)
    got: dict[str, bytes] = {}

    async def pull(name: str) -> None:
        got[name] = await read(control, name, 3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(staging.stage, "pipe pipe output")
        await trio.testing.wait_all_tasks_blocked()
        assert await read(control, "next") == b"1 pipe pipe output\n"
        nursery.start_soon(pull, "1/script")
        nursery.start_soon(pull, "1/stdin")
        await trio.testing.wait_all_tasks_blocked()
        job = staging.take("pipe pipe output")
        assert job is not None
        assert not got
        job.stdin, job.stdout = Literal(b"in"), Collector(9)
        job.begin(b"script")
    assert got == {"1/script": b"scr", "1/stdin": b"in"}
    assert [await read(control, "1/script") for _ in range(2)] == [b"ipt", b""]
    await write(control, "1/stdout", b"out")
    await write(control, "1/status", b"exit 5\n")
    assert await job.wait() == 5
    assert job.stdout.data == b"out"
    assert staging.take("pipe pipe output") is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(staging.stage, "/dev/tty1")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pull, "2/script")
        await trio.testing.wait_all_tasks_blocked()
        assert staging.take("null null null") is None
    assert got["2/script"] == b""


async def test_input_ends_with_the_job() -> None:
    control = ControlFilesystem()
    control.submit(job := Job(Waiting()), b"")
    got: list[bytes] = []

    async def pull() -> None:
        got.append(await read(control, "1/stdin"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull)
        await trio.testing.wait_all_tasks_blocked()
        job.finish(returncode=0)
    assert got == [b""]
    assert await read(control, "1/stdin") == b""


async def test_streams_that_fail_make_the_job_fail() -> None:
    full = Failing(errno.ENOSPC)
    for stream, job in (("stdin", Job(full)), ("stdout", Job(None, full)), ("stderr", Job(None, None, full))):
        control = ControlFilesystem()
        control.submit(job, b"")
        with pytest.raises(OSError, match="No space"):
            await (read(control, "1/stdin") if stream == "stdin" else write(control, f"1/{stream}", b"x"))
        await write(control, "1/status", b"exit 0\n")
        with pytest.raises(UmlError, match=r"^standard \w+: No space left on device; "):
            await job.wait()


async def test_a_reader_that_went_away_is_no_failure() -> None:
    control = ControlFilesystem()
    control.submit(job := Job(stdout=Failing(errno.EPIPE)), b"")
    with pytest.raises(BrokenPipeError):
        await write(control, "1/stdout", b"x")
    await write(control, "1/status", b"exit 141\n")
    assert await job.wait() == 141


@pytest.mark.parametrize("word", [b"failed no such thing\n", b"exit x\n", b"\xff\n", b"\n", b"exit -1\n"])
async def test_other_words_are_failures(word: bytes) -> None:
    control = ControlFilesystem()
    control.submit(job := Job(), b"")
    await write(control, "1/status", word)
    with pytest.raises(UmlError):
        await job.wait()


async def test_a_guest_that_talks_too_much() -> None:
    control = ControlFilesystem()
    for _ in range(3):
        await write(control, "report", b"x" * REPORT_MAX)
    assert len(control.report) == REPORT_MAX
    assert control.reported.is_set()


async def test_the_end_of_the_guest() -> None:
    control = ControlFilesystem()
    control.submit(job := Job(), b"")
    control.stop(UmlError("gone"))
    with pytest.raises(UmlError, match="gone"):
        await job.wait()


async def test_what_cannot_be_done() -> None:
    control = ControlFilesystem()
    control.submit(Job(), b"script")
    with pytest.raises(PermissionError):
        await write(control, "1/script", b"x")
    with pytest.raises(OSError, match="Stale"):
        await control.getattr(999)
    names: list[bytes] = []

    def add(name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        names.append(name)
        return True

    await control.readdir(ROOT, 0, 0, add)
    assert names == [b"next", b"report", b"1"]
    assert (await control.statfs()).name_max == 255
