"""What others do on the host, as changes: without what the consumer does itself. No guest, and no mount."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hostfs import HostFilesystem
from hostfs.watched import Watched
from tests.contract.subject import Subject
from tests.hostfs.features import features_of
from umlfs.filesystem import ROOT, Change, ChangeKind, SetAttr
from umlfs.host.watch import OVERFLOW, Event, Watch

SECONDS = 60.0
END = b"the end"
"""A name that is removed last, so that what came before it is known to have been heard."""

Heard = tuple[ChangeKind, bytes, bytes]
"""A change, its name, and the new name."""


class Ear:
    """Hears the changes of a filesystem."""

    def __init__(self, watched: Watched, directory: Path) -> None:
        self._directory = directory
        self._heard: list[Change] = []
        self._more = trio.Event()
        watched.changes.listen(self._hear)

    def _hear(self, change: Change) -> None:
        self._heard.append(change)
        self._more.set()

    async def changes(self) -> list[Change]:
        """All since the last call."""
        end = self._directory / os.fsdecode(END)
        end.mkdir()
        end.rmdir()
        with trio.fail_after(SECONDS):
            while not any((each.kind, each.name) == (ChangeKind.REMOVED, END) for each in self._heard):
                self._more = trio.Event()
                await self._more.wait()
        heard, self._heard = [each for each in self._heard if each.name != END], []
        return heard

    async def heard(self) -> list[Heard]:
        return [(each.kind, each.name, each.new_name) for each in await self.changes()]


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[tuple[Subject, Ear, Watched]]:
    inner = HostFilesystem(directory)
    filesystem = Watched(inner, inner.resolver)
    ear = Ear(filesystem, directory)
    async with filesystem.running():
        try:
            yield Subject(filesystem, features_of(directory)), ear, filesystem
        finally:
            filesystem.changes.close()
    await filesystem.close()


async def test_each_kind(tmp_path: Path) -> None:
    async with watched(tmp_path) as (_, ear, _):
        (tmp_path / "file").write_bytes(b"x")
        assert await ear.heard() == [
            (ChangeKind.CREATED, b"file", b""),
            (ChangeKind.MODIFIED, b"file", b""),
            (ChangeKind.WRITTEN, b"file", b""),
        ]
        (tmp_path / "file").chmod(0o600)
        (tmp_path / "file").rename(tmp_path / "moved")
        (tmp_path / "moved").unlink()
        assert await ear.heard() == [
            (ChangeKind.ATTRIBUTES, b"file", b""),
            (ChangeKind.MOVED, b"file", b"moved"),
            (ChangeKind.REMOVED, b"moved", b""),
        ]


async def test_what_a_new_name_is(tmp_path: Path) -> None:
    async with watched(tmp_path) as (_, ear, _):
        (tmp_path / "directory").mkdir()
        (tmp_path / "link").symlink_to("directory")
        os.mkfifo(tmp_path / "fifo")
        kinds = [(each.name, each.mode) for each in await ear.changes() if each.kind is ChangeKind.CREATED]
    assert kinds == [(b"directory", stat.S_IFDIR), (b"link", stat.S_IFLNK), (b"fifo", stat.S_IFIFO)]


async def test_closing_what_was_only_read_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with watched(tmp_path) as (_, ear, _):
        with (tmp_path / "file").open("r+b") as file:
            file.read()
        assert await ear.heard() == []


async def test_to_and_from_where_nobody_looks(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "one").touch()
    (tmp_path / "two").touch()
    async with watched(inside) as (_, ear, _):
        (inside / "one").rename(tmp_path / "one")
        (tmp_path / "two").rename(inside / "two")
        changes = await ear.changes()
    assert [(each.kind, bool(each.parent), bool(each.new_parent)) for each in changes] == [
        (ChangeKind.MOVED, True, False),
        (ChangeKind.MOVED, False, True),
    ]


async def test_the_consumers_own_changes_are_none(tmp_path: Path) -> None:
    async with watched(tmp_path) as (s, ear, _):
        ino = await s.file(ROOT, b"file")
        handle = await s.open(ino, os.O_RDWR)
        await s.fs.write_from(ino, handle, 0, [memoryview(b"content")])
        await s.fs.setattr(ino, SetAttr(mode=0o600))
        await s.close(ino, handle)
        await s.fs.rename(ROOT, b"file", ROOT, b"moved")
        await s.fs.unlink(ROOT, b"moved")
        await s.fs.mkdir(ROOT, b"directory", 0o755, 0, s.features.caller)
        await s.fs.rmdir(ROOT, b"directory")
        assert await ear.heard() == []


async def test_a_directory_is_watched_once_it_is_known(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    async with watched(tmp_path) as (s, ear, filesystem):
        (tmp_path / "directory" / "before").touch()
        assert await ear.heard() == []
        entry = await s.lookup(ROOT, b"directory")
        (tmp_path / "directory" / "after").touch()
        [created, *_] = await ear.changes()
        assert (created.kind, created.parent, created.name) == (ChangeKind.CREATED, entry.ino, b"after")
        assert filesystem.changes.path(entry.ino) == b"directory"


async def test_a_move_keeps_the_number(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with watched(tmp_path) as (s, ear, filesystem):
        before = (await s.lookup(ROOT, b"file")).ino
        assert filesystem.changes.known(ROOT, b"file") == before
        (tmp_path / "file").rename(tmp_path / "moved")
        await ear.changes()
        assert (await s.lookup(ROOT, b"moved")).ino == before
        assert filesystem.changes.known(ROOT, b"file") == before  # until the consumer learns of it
        filesystem.changes.lost(ROOT, b"file")
        assert not filesystem.changes.known(ROOT, b"file")


async def test_what_is_forgotten_is_known_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with watched(tmp_path) as (s, _, filesystem):
        ino = (await s.lookup(ROOT, b"file")).ino
        again = filesystem.changes.again(ino)
        assert again is not None
        assert again.ino == ino
        s.fs.forget(ino, 2)
        assert filesystem.changes.again(ino) is None


async def test_after_an_overflow_each_directory_has_changed(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    async with watched(tmp_path) as (s, ear, filesystem):
        entry = await s.lookup(ROOT, b"directory")
        filesystem.changes._happened(Event(-1, OVERFLOW, b"", 0))
        changes = await ear.changes()
    assert {(each.kind, each.parent) for each in changes} == {
        (ChangeKind.ATTRIBUTES, ROOT),
        (ChangeKind.ATTRIBUTES, entry.ino),
    }


async def test_the_systems_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from umlfs.host.watch import Watch

    def refused(self: Watch, fd: int) -> int:
        raise OSError(errno.ENOSPC, "")

    async with watched(tmp_path) as (s, _, filesystem):
        assert filesystem.remarks() == []
        (tmp_path / "directory").mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(Watch, "add", refused)
            await s.lookup(ROOT, b"directory")
        assert "max_user_watches" in filesystem.remarks()[0]


async def test_a_watch_that_is_closed_has_nothing_to_wait_for() -> None:
    watch = Watch()
    watch.close()
    with trio.fail_after(10):
        assert await watch.wait(100)
    assert watch.read() == []
