"""What the program that repeats changes is answered, and what waits its turn: without a kernel, a guest or a host."""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from umlfs.filesystem import ROOT, Attr, Change, ChangeKind, Entry, Filesystem
from umlfs.fuse import announcer as module
from umlfs.fuse.announcements import Announcements, new_gid
from umlfs.fuse.announcer import HANDLE, Announcer
from umlfs.wire.announcer import OUTSIDE
from umlfs.wire.fuse import Header, Opcode

FILE, OTHER, DIRECTORY = 10, 11, 12
CREATED, REMOVED, MOVED = ChangeKind.CREATED, ChangeKind.REMOVED, ChangeKind.MOVED
MODIFIED, ATTRIBUTES = ChangeKind.MODIFIED, ChangeKind.ATTRIBUTES


def entry(ino: int) -> Entry:
    return Entry(ino, Attr(ino, stat.S_IFREG | 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0))


class Names(Filesystem):
    """Names that are there by now, and what the consumer knew of them before: `Changes` too."""

    def __init__(self, now: dict[bytes, int], before: dict[bytes, int]) -> None:
        self.now, self.before = now, before
        self.lost_names: list[bytes] = []
        self.gone: set[int] = set()
        self.hear: Callable[[Change], None] = lambda change: None

    @property
    def changes(self) -> Names:
        return self

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return entry(self.now.get(name, 0))

    async def getattr(self, ino: int, handle: int = 0) -> tuple[Attr, int]:
        return entry(ino).attr, 0

    def listen(self, hear: Callable[[Change], None]) -> None:
        self.hear = hear

    def path(self, ino: int) -> bytes | None:
        return None if ino in self.gone else b"" if ino == ROOT else b"directory"

    def known(self, parent: int, name: bytes) -> int:
        return self.before.get(name, 0)

    def again(self, ino: int) -> Entry | None:
        return entry(ino) if ino in self.before.values() else None

    def lost(self, parent: int, name: bytes) -> None:
        self.lost_names.append(name)


Act = Callable[[Announcer, Change], Awaitable[None]]


@asynccontextmanager
async def announcing(names: Names, act: Act) -> AsyncIterator[list[Change]]:
    """What is announced; `act` is what the kernel asks while it is."""
    announcer, seen = Announcer(names, names), list[Change]()

    async def perform(change: Change, parent: bytes, new_parent: bytes) -> None:
        seen.append(change)
        await act(announcer, change)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(announcer.run, perform)
        yield seen
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def idle(announcer: Announcer, change: Change) -> None:
    """A kernel that does nothing."""


@contextmanager
def failing(code: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
        yield
    assert caught.value.errno == code


async def test_a_new_name_is_not_there_until_it_is_made() -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        assert not (await announcer.lookup(ROOT, b"new")).ino
        assert (await announcer.lookup(ROOT, b"other")).ino == OTHER
        with failing(errno.EPERM):
            await announcer.make(ROOT, b"other")
        assert (await announcer.make(ROOT, b"new")).ino == FILE
        with failing(errno.EPERM):
            announcer.remove(ROOT, b"new")

    names = Names({b"new": FILE, b"other": OTHER}, {})
    async with announcing(names, act) as seen:
        names.hear(Change(CREATED, ROOT, b"new", stat.S_IFREG))
    assert [change.kind for change in seen] == [CREATED]


async def test_a_name_that_is_found_already_is_told_of_by_its_attributes() -> None:
    names = Names({b"new": FILE}, {b"new": FILE})
    async with announcing(names, idle) as seen:
        names.hear(Change(CREATED, ROOT, b"new", stat.S_IFREG))
    assert [change.kind for change in seen] == [CREATED, ATTRIBUTES]


async def test_a_new_name_that_is_gone_again() -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        if change.kind is CREATED:
            with failing(errno.ENOENT):
                await announcer.make(ROOT, b"new")

    names = Names({}, {})
    async with announcing(names, act):
        names.hear(Change(CREATED, ROOT, b"new", stat.S_IFREG))


@pytest.mark.parametrize("known", [True, False])
async def test_a_removed_name_is_there_until_it_is_removed(known: bool) -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        found = await announcer.lookup(ROOT, b"old")
        assert found.ino == FILE if known else found.ino
        attr, valid = await announcer.getattr(found.ino)
        assert stat.S_ISREG(attr.mode)
        assert not valid
        announcer.remove(ROOT, b"old")

    names = Names({}, {b"old": FILE} if known else {})
    async with announcing(names, act) as seen:
        names.hear(Change(REMOVED, ROOT, b"old", stat.S_IFREG))
    assert [change.kind for change in seen] == [REMOVED]
    assert names.lost_names == [b"old"]


async def test_a_save_by_rename() -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        moved, replaced = await announcer.lookup(ROOT, b".new"), await announcer.lookup(ROOT, b"file")
        assert (moved.ino, replaced.ino) == (OTHER, FILE)
        assert not moved.entry_valid_ns
        with failing(errno.EPERM):
            announcer.rename(ROOT, b".new", ROOT, b"elsewhere")
        announcer.rename(ROOT, b".new", ROOT, b"file")

    names = Names({b"file": OTHER}, {b".new": OTHER, b"file": FILE})
    async with announcing(names, act) as seen:
        names.hear(Change(MOVED, ROOT, b".new", stat.S_IFREG, 0, ROOT, b"file"))
    assert [change.kind for change in seen] == [MOVED]


async def test_a_rename_from_where_nobody_looks() -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        outside = await announcer.lookup(ROOT, OUTSIDE)
        assert stat.S_ISDIR((await announcer.getattr(outside.ino))[0].mode)
        assert (await announcer.lookup(outside.ino, b"any")).ino == FILE
        assert not (await announcer.lookup(ROOT, b"file")).ino
        announcer.rename(outside.ino, b"any", ROOT, b"file")

    names = Names({b"file": FILE}, {})
    async with announcing(names, act) as seen:
        names.hear(Change(MOVED, 0, b"", stat.S_IFREG, 0, ROOT, b"file"))
    assert [change.kind for change in seen] == [MOVED]


async def test_what_is_in_a_directory_that_is_gone_is_not_told() -> None:
    names = Names({}, {})
    names.gone.add(DIRECTORY)
    async with announcing(names, idle) as seen:
        names.hear(Change(REMOVED, DIRECTORY, b"old", stat.S_IFREG))
    assert not seen


async def test_what_waits_already_need_not_wait_twice() -> None:
    async def act(announcer: Announcer, change: Change) -> None:
        assert announcer.open().handle == HANDLE

    names = Names({b"file": FILE}, {b"file": FILE})
    async with announcing(names, act) as seen:
        for _ in range(3):
            names.hear(Change(MODIFIED, ROOT, b"file", stat.S_IFREG))
        names.hear(Change(REMOVED, ROOT, b"file", stat.S_IFREG))
        names.hear(Change(MODIFIED, ROOT, b"file", stat.S_IFREG))
    assert [change.kind for change in seen] == [MODIFIED, REMOVED, MODIFIED]


async def test_too_many_become_one_for_each_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 3)

    async def act(announcer: Announcer, change: Change) -> None:
        announcer.open()

    names = Names({}, {})
    async with announcing(names, act) as seen:
        for number in range(4):
            names.hear(Change(REMOVED, DIRECTORY if number % 2 else ROOT, b"%d" % number, stat.S_IFREG))
    assert [(change.kind, change.parent, change.name) for change in seen] == [
        (ATTRIBUTES, ROOT, b""),
        (ATTRIBUTES, DIRECTORY, b""),
        (REMOVED, DIRECTORY, b"3"),
    ]


async def test_outside_of_an_announcement_nothing_is_changed() -> None:
    names = Names({b"file": FILE}, {b"file": FILE})
    announcer = Announcer(names, names)
    assert (await announcer.lookup(ROOT, b"file")).ino == FILE
    with failing(errno.EPERM):
        await announcer.make(ROOT, b"file")
    with failing(errno.EPERM):
        announcer.remove(ROOT, b"file")
    with failing(errno.EPERM):
        announcer.rename(ROOT, b"file", ROOT, b"other")


async def test_the_announcer_is_known_by_its_group() -> None:
    gid = new_gid()
    announcements = Announcements(Names({}, {}), gid)

    def header(opcode: int, group: int) -> Header:
        return Header(40, opcode, 1, ROOT, 0, group, 1, 0, 0)

    assert announcements.handler(header(Opcode.UNLINK, gid - 1)) is None
    assert announcements.handler(header(Opcode.READDIR, gid)) is None
    for opcode in (Opcode.WRITE, Opcode.SETXATTR, Opcode.LINK, Opcode.CREATE, 4242):
        handler = announcements.handler(header(opcode, gid))
        assert handler is not None
        with failing(errno.EPERM):
            await handler(header(opcode, gid), b"")
