"""What is leased, what a change on the host invalidates, and that the consumer's own changes make no noise."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

import hostfs.leases
from hostfs import Cache, HostFilesystem
from hostfs.leases import LEASE_NS
from tests.contract.subject import Subject
from tests.hostfs.features import features_of
from umlfs.filesystem import ROOT, SetAttr
from umlfs.host.watch import OVERFLOW, Event, Watch

SECOND = 1_000_000_000

Told = tuple[int, bytes | None]
"""An inode, or a directory and a name in it."""


class Recorder:
    """An Invalidator that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._more = trio.Event()

    def entry(self, parent: int, name: bytes) -> None:
        self._add((parent, name))

    def inode(self, ino: int, offset: int = 0, length: int = 0) -> None:
        self._add((ino, None))

    async def drop(self, ino: int) -> None:
        self._add((ino, None))

    def _add(self, told: Told) -> None:
        self.told.append(told)
        self._more.set()
        self._more = trio.Event()

    async def expect(self, *wanted: Told) -> None:
        """Wait until all of `wanted` were told, and nothing else was."""
        with trio.fail_after(10):
            while not set(wanted) <= set(self.told):
                await self._more.wait()
        assert set(self.told) == set(wanted)
        self.told.clear()


@pytest.fixture(autouse=True)
def fine_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux 6.13; where times are coarser, two changes at once are told of even if one is the consumer's."""
    monkeypatch.setattr(hostfs.leases, "_kernel", lambda: (6, 13))


@asynccontextmanager
async def leased(directory: Path, **options: object) -> AsyncIterator[tuple[Subject, Recorder]]:
    filesystem = HostFilesystem(directory, **options)  # type: ignore[arg-type]
    recorder = Recorder()
    served = filesystem.attach(recorder)
    try:
        async with served.running():
            yield Subject(served, features_of(directory)), recorder
    finally:
        await served.close()


async def quiet(s: Subject, recorder: Recorder, directory: Path) -> None:
    """Nothing was told: what is told next is of something that happened later."""
    await s.attr(ROOT)
    (directory / "marker").touch()
    await recorder.expect((ROOT, None))


async def test_lifetimes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    os.link(tmp_path / "file", tmp_path / "directory" / "link")
    (tmp_path / "alone").touch()
    async with leased(tmp_path) as (s, _):
        alone, linked, below = [await s.lookup(ROOT, name) for name in (b"alone", b"file", b"directory")]
        assert (alone.entry_valid_ns, alone.attr_valid_ns) == (LEASE_NS, LEASE_NS)
        assert (linked.entry_valid_ns, linked.attr_valid_ns) == (LEASE_NS, SECOND)
        assert (below.entry_valid_ns, below.attr_valid_ns) == (LEASE_NS, SECOND)
        await s.lookup(below.ino, b"link")
        assert (await s.fs.getattr(below.ino))[1] == LEASE_NS
        assert (await s.fs.getattr(ROOT))[1] == LEASE_NS
        missing = await s.fs.lookup(ROOT, b"missing")
        assert (missing.ino, missing.entry_valid_ns) == (0, LEASE_NS)


@pytest.mark.parametrize("cache", [Cache.ALWAYS, Cache.NEVER])
async def test_only_where_it_is_asked_for(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with leased(tmp_path, cache=cache) as (s, recorder):
        assert (await s.lookup(ROOT, b"file")).attr_valid_ns != LEASE_NS
        (tmp_path / "file").write_text("x")
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.told == []


async def test_exactly_what_changed(tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four"):
        (tmp_path / name).write_text("content")
    async with leased(tmp_path) as (s, recorder):
        one, two, three, four = [(await s.lookup(ROOT, name)).ino for name in (b"one", b"two", b"three", b"four")]
        assert (await s.fs.lookup(ROOT, b"five")).ino == 0
        await s.attr(ROOT)
        (tmp_path / "one").write_text("other")
        await recorder.expect((one, None))
        (tmp_path / "two").chmod(0o600)
        await recorder.expect((two, None))
        os.truncate(tmp_path / "three", 2)
        await recorder.expect((three, None))
        (tmp_path / "five").touch()
        await recorder.expect((ROOT, None), (ROOT, b"five"))
        os.rename(tmp_path / "one", tmp_path / "four")
        await recorder.expect((ROOT, b"one"), (ROOT, b"four"), (one, None), (four, None))
        (tmp_path / "two").unlink()
        await recorder.expect((ROOT, b"two"), (two, None))


async def test_what_is_not_held_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with leased(tmp_path) as (s, recorder):
        ino = (await s.lookup(ROOT, b"file")).ino
        for _ in range(100):
            (tmp_path / "file").write_text("x")
        await recorder.expect((ino, None))
        await quiet(s, recorder, tmp_path)
        await s.attr(ino)
        (tmp_path / "file").write_text("y")
        await recorder.expect((ino, None))
        assert await s.read(ino) == b"y"
        (tmp_path / "file").write_text("z")
        await recorder.expect((ino, None))


async def test_own_changes_make_no_noise(tmp_path: Path) -> None:
    async with leased(tmp_path) as (s, recorder):
        assert await s.find(ROOT, b"directory") is None
        await s.attr(ROOT)
        below = await s.mkdir(ROOT, b"directory")
        for index in range(20):
            assert await s.find(below, b"%d" % index) is None
            ino = await s.file(below, b"%d" % index, b"content" * 1000)
            await s.attr(ino)
            await s.write(ino, b"more", 10)
            await s.set(ino, SetAttr(mode=0o600))
            await s.set(ino, SetAttr(atime_ns=5, mtime_ns=6))
            await s.fs.rename(below, b"%d" % index, ROOT, b"moved%d" % index)
            await s.attr(ino)
        await s.symlink(ROOT, b"link", b"x")
        for index in range(0, 20, 2):
            await s.fs.unlink(ROOT, b"moved%d" % index)
        await s.fs.rmdir(ROOT, b"directory")
        await s.attr(ROOT)
        await quiet(s, recorder, tmp_path)


async def test_another_write_after_an_own_one(tmp_path: Path) -> None:
    async with leased(tmp_path) as (s, recorder):
        assert await s.find(ROOT, b"file") is None
        ino = await s.file(ROOT, b"file", b"ours")
        await s.attr(ino)
        (tmp_path / "file").write_text("theirs")
        await recorder.expect((ino, None))


async def test_past_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    add, allowed = Watch.add, 2

    def limited(self: Watch, directory: int) -> int:
        nonlocal allowed
        if not allowed:
            raise OSError(errno.ENOSPC, "no more")
        allowed -= 1
        return add(self, directory)

    monkeypatch.setattr(Watch, "add", limited)
    async with leased(tmp_path) as (s, _recorder):
        places = [(await s.lookup(ROOT, name)).ino for name in (b"a", b"b")]
        assert s.fs.remarks() == []
        assert (await s.lookup(places[0], b"file")).entry_valid_ns == LEASE_NS
        entry = await s.lookup(places[1], b"file")
        assert (entry.entry_valid_ns, entry.attr_valid_ns) == (SECOND, SECOND)
        assert "2 directories are watched" in s.fs.remarks()[0]
        # Once nothing is left of what was told under the least used, another takes its place.
        leases = s.fs.leases  # type: ignore[attr-defined]
        next(iter(leases._by_inode.values())).used -= 1000
        leases._retry_at, allowed = 0.0, 0

        def remove(self: Watch, watch: int) -> None:
            nonlocal allowed
            allowed += 1

        monkeypatch.setattr(Watch, "remove", remove)
        assert (await s.lookup(places[1], b"file")).entry_valid_ns == LEASE_NS


async def test_no_instances_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()

    def none_left(self: Watch) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Watch, "__init__", none_left)
    async with leased(tmp_path) as (s, _):
        assert "max_user_instances" in s.fs.remarks()[0]
        assert (await s.lookup(ROOT, b"file")).entry_valid_ns == SECOND


async def test_lost_events_leave_nothing_believed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with leased(tmp_path) as (s, recorder):
        ino = (await s.lookup(ROOT, b"file")).ino
        assert (await s.fs.lookup(ROOT, b"missing")).ino == 0
        leases = s.fs.leases  # type: ignore[attr-defined]
        leases._handle([Event(-1, OVERFLOW, b"")])
        await recorder.expect((ROOT, b"file"), (ino, None), (ROOT, b"missing"), (ROOT, None))


async def test_directories_that_go(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").touch()
    async with leased(tmp_path) as (s, recorder):
        below = (await s.lookup(ROOT, b"directory")).ino
        ino = (await s.lookup(below, b"file")).ino
        (tmp_path / "directory" / "file").unlink()
        (tmp_path / "directory").rmdir()
        await recorder.expect((below, b"file"), (ino, None), (below, None), (ROOT, b"directory"))
