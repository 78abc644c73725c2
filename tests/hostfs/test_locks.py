"""Locks that are taken on the host: the same for a consumer, another consumer, and programs of the host."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from hostfs import Cache, HostFilesystem
from tests import needs
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.hostfs.features import features_of
from umlfs.filesystem import LOCK_END, ROOT, Lock

ONE, OTHER = 1, 2
READ, WRITE, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Subject]:
    filesystem = HostFilesystem(tmp_path)
    yield Subject(filesystem, features_of(tmp_path))
    await filesystem.close()
    assert not filesystem.locks


async def opened(s: Subject, name: bytes = b"file", flags: int = os.O_RDWR) -> tuple[int, int]:
    ino = await s.file(ROOT, name) if await s.find(ROOT, name) is None else (await s.lookup(ROOT, name)).ino
    return ino, await s.open(ino, flags)


def host_has(path: Path, kind: int, start: int, length: int) -> bool:
    """Whether a process of the host can have this lock."""
    code = "from fcntl import *; import sys; lockf(open(sys.argv[1], 'r+'), *map(int, sys.argv[2:]))"
    words = [
        str(path),
        str((fcntl.LOCK_SH if kind == READ else fcntl.LOCK_EX) | fcntl.LOCK_NB),
        str(length),
        str(start),
    ]
    return subprocess.run(["python3", "-c", code, *words], capture_output=True, check=False).returncode == 0


async def test_posix_locks(s: Subject, tmp_path: Path) -> None:
    ino, handle = await opened(s)
    await s.fs.setlk(ino, handle, ONE, Lock(WRITE, 10, 19))
    await s.fs.setlk(ino, handle, ONE, Lock(READ, 100, LOCK_END))
    with failing(errno.EAGAIN):
        await s.fs.setlk(ino, handle, OTHER, Lock(READ, 0, 10))
    await s.fs.setlk(ino, handle, OTHER, Lock(READ, 200, 300))
    assert await s.fs.getlk(ino, handle, OTHER, Lock(WRITE, 15, 15)) == Lock(WRITE, 10, 19)
    assert await s.fs.getlk(ino, handle, OTHER, Lock(WRITE, 1000, 1000)) == Lock(READ, 100, LOCK_END)
    assert await s.fs.getlk(ino, handle, ONE, Lock(WRITE, 0, 50)) is None
    assert not host_has(tmp_path / "file", WRITE, 10, 1)
    assert host_has(tmp_path / "file", WRITE, 0, 10)
    assert host_has(tmp_path / "file", READ, 150, 10)
    words = [needs.program("lslocks"), "-no", "INODE"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert str((tmp_path / "file").stat().st_ino) in listed.split()
    await s.fs.setlk(ino, handle, ONE, Lock(UNLOCK, 10, 14))
    assert host_has(tmp_path / "file", WRITE, 10, 5)
    assert not host_has(tmp_path / "file", WRITE, 15, 5)
    s.fs.unlock(ino, handle, ONE)
    assert host_has(tmp_path / "file", WRITE, 0, 150)
    await s.close(ino, handle)  # what is left of the others' goes with the handle
    assert host_has(tmp_path / "file", WRITE, 0, 0)


async def test_flock(s: Subject, tmp_path: Path) -> None:
    ino, handle = await opened(s)
    with (tmp_path / "file").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        await s.fs.flock(ino, handle, ONE, READ)
        with failing(errno.EAGAIN):
            await s.fs.flock(ino, handle, OTHER, WRITE)
        fcntl.flock(file, fcntl.LOCK_UN)
        s.fs.unlock(ino, handle, ONE, whole=True)
        await s.fs.flock(ino, handle, OTHER, WRITE)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        await s.fs.flock(ino, handle, OTHER, UNLOCK)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_waiting_and_giving_up(s: Subject, tmp_path: Path) -> None:
    ino, handle = await opened(s)
    with (tmp_path / "file").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with trio.move_on_after(0.05) as scope:
            await s.fs.flock(ino, handle, ONE, WRITE, wait=True)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.fs.flock, ino, handle, ONE, WRITE, True)
            await trio.sleep(0.02)
            fcntl.flock(file, fcntl.LOCK_UN)
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        s.fs.disconnect()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    filesystem = HostFilesystem(tmp_path, read_only=True)
    s = Subject(filesystem)
    ino = (await s.lookup(ROOT, b"file")).ino
    handle = await s.open(ino, os.O_RDONLY)
    await s.fs.setlk(ino, handle, ONE, Lock(READ))
    assert not host_has(tmp_path / "file", WRITE, 0, 0)
    await filesystem.close()


async def test_only_where_others_are(tmp_path: Path) -> None:
    for cache, expected in ((Cache.ALWAYS, False), (Cache.AUTO, True), (Cache.NEVER, True)):
        filesystem = HostFilesystem(tmp_path, cache=cache)
        assert filesystem.traits.locks is expected
        await filesystem.close()


HOST = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
for line in sys.stdin:
    try:
        base.execute(line)
        print("done", flush=True)
    except sqlite3.OperationalError as error:
        print(error, flush=True)
"""


@contextlib.contextmanager
def sqlite(path: Path) -> Iterator[Callable[[str], str]]:
    """A process of the host with a database open: what it says to a statement."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["python3", "-c", HOST, path], text=True, bufsize=1, **pipes) as process:  # type: ignore[call-overload]

        def say(statement: str) -> str:
            process.stdin.write(statement + "\n")
            return str(process.stdout.readline().strip())

        yield say
        process.stdin.close()


async def test_memory_that_sqlite_shares_is_one_kernels(s: Subject, tmp_path: Path, long: bool) -> None:
    """Whoever has it first keeps it; the others are told that the database is locked, and nothing breaks."""
    path = tmp_path / "base"
    with sqlite(path) as host:
        assert host("pragma journal_mode=wal") == "done"
        assert host("create table t (n)") == "done"
        ino = (await s.lookup(ROOT, b"base-shm")).ino
        with failing(errno.EBUSY):
            await s.open(ino, os.O_RDWR)
        reader = await s.open(ino, os.O_RDONLY)  # a backup
        held = await s.fs.getlk(ino, reader, ONE, Lock(WRITE, 128, 128))
        assert held == Lock(WRITE, 128, 128)
        await s.close(ino, reader)
    ino, handle = await opened(s, b"base-shm")
    for owner in (ONE, OTHER):
        await s.fs.setlk(ino, handle, owner, Lock(READ, 128, 128))
    assert await s.fs.getlk(ino, handle, OTHER, Lock(WRITE, 128, 128)) == Lock(READ, 128, 128)
    if long:  # it tries for ten seconds
        with sqlite(path) as host:
            assert host("insert into t values (1)") in ("database is locked", "locking protocol")
    await s.close(ino, handle)
    with sqlite(path) as host:
        assert host("insert into t values (1)") == "done"
