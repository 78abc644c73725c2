"""Directories: listing them, in parts, with attributes, and while they change."""

from __future__ import annotations

import errno
import stat

from tests.contract.subject import Subject, check, failing
from umlfs.filesystem import ROOT, Entry

_MANY = 1200


async def _fill(s: Subject, parent: int, count: int = _MANY) -> list[bytes]:
    names = [b"entry-%05d" % number for number in range(count)]
    for name in names:
        await s.file(parent, name)
    return names


class _Raw:
    """A sink that keeps the number and type of each name."""

    def __init__(self) -> None:
        self.found: dict[bytes, tuple[int, int]] = {}

    def __call__(self, name: bytes, offset: int, ino: int, mode: int, entry: Entry | None) -> bool:
        assert entry is None
        self.found[name] = ino, mode
        return True


async def _raw(s: Subject, ino: int) -> dict[bytes, tuple[int, int]]:
    sink = _Raw()
    handle = await s.opendir(ino)
    await s.fs.readdir(ino, handle, 0, sink)
    await s.closedir(ino, handle)
    return sink.found


@check
async def listings_hold_dot_and_dot_dot(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    for ino in (ROOT, directory):
        found = await _raw(s, ino)
        assert found[b"."] == ((await s.attr(ino)).ino, stat.S_IFDIR)
        assert found[b".."] == ((await s.attr(ROOT)).ino, stat.S_IFDIR)


@check
async def listings_tell_number_and_type(s: Subject) -> None:
    inos = {
        b"file": await s.file(ROOT, b"file"),
        b"directory": await s.mkdir(ROOT, b"directory"),
        b"link": await s.symlink(ROOT, b"link", b"x"),
        b"fifo": (await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)).ino,
    }
    found = await _raw(s, ROOT)
    for name, ino in inos.items():
        attr = await s.attr(ino)
        assert found[name] == (attr.ino, stat.S_IFMT(attr.mode))


@check
async def listings_come_in_parts_of_any_size(s: Subject) -> None:
    few, many = await s.mkdir(ROOT, b"few"), await s.mkdir(ROOT, b"many")
    names = {few: await _fill(s, few, 100), many: await _fill(s, many)}
    for directory, size in ((few, 1), (few, 7), (many, 100), (many, 5000)):
        for plus in (False, True):
            assert sorted(name for name, _ in await s.entries(directory, plus, size)) == names[directory]


@check
async def a_listing_that_takes_nothing(s: Subject) -> None:
    await s.file(ROOT, b"file")
    await s.fs.readdir(ROOT, await s.opendir(ROOT), 0, lambda *_: False, True)
    assert await s.names() == [b"file"]


@check
async def listings_with_attributes(s: Subject) -> None:
    names = await _fill(s, ROOT, 50)
    await s.mkdir(ROOT, b"directory")
    for name, entry in await s.entries(ROOT, True, 9):
        assert entry is not None
        assert entry.ino == (await s.lookup(ROOT, name)).ino
        assert entry.attr == await s.attr(entry.ino)
        names = [other for other in names if other != name]
    assert names == []


@check
async def listings_with_attributes_count_lookups(s: Subject) -> None:
    await s.file(ROOT, b"file", b"x")
    s.forget_all()
    listed = dict(await s.entries(ROOT, True))[b"file"]
    assert listed is not None
    found = await s.lookup(ROOT, b"file")
    assert found.ino == listed.ino
    s.fs.forget(found.ino, 1)
    s.lookups[found.ino] -= 1
    assert await s.read(found.ino) == b"x"  # the listing's own is left
    s.forget_all()
    assert await s.read((await s.lookup(ROOT, b"file")).ino) == b"x"


@check
async def names_that_stay_come_once_while_others_go(s: Subject) -> None:
    names = await _fill(s, ROOT)
    stay = set(names[::2])
    seen: list[bytes] = []
    offset, handle = 0, await s.opendir(ROOT)
    going = iter(names[1::2])
    while True:
        offset, part = await s.batch(ROOT, handle, offset, 40)
        if not part:
            break
        seen += [name for name, _ in part]
        for _ in range(20):
            if (name := next(going, None)) is not None:
                await s.fs.unlink(ROOT, name)
    await s.closedir(ROOT, handle)
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))


@check
async def names_that_stay_come_once_while_others_come(s: Subject) -> None:
    names = set(await _fill(s, ROOT, 1000))
    seen: list[bytes] = []
    offset, handle = 0, await s.opendir(ROOT)
    turn = 0
    while turn < 500:
        offset, part = await s.batch(ROOT, handle, offset, 30, True)
        if not part:
            break
        seen += [name for name, _ in part]
        await s.file(ROOT, b"new-%d" % turn)
        await s.fs.rename(ROOT, b"new-%d" % turn, ROOT, b"renamed-%d" % turn)
        turn += 1
    await s.closedir(ROOT, handle)
    old = [name for name in seen if name in names]
    assert sorted(old) == sorted(names)


@check
async def a_listing_shows_what_is_there_when_it_starts(s: Subject) -> None:
    await _fill(s, ROOT, 100)
    handle = await s.opendir(ROOT)
    await s.batch(ROOT, handle, 0, 10)  # begun and left
    await s.closedir(ROOT, handle)
    for number in range(100):
        await s.fs.unlink(ROOT, b"entry-%05d" % number)
    await s.file(ROOT, b"only")
    for size in (1, 2, 10):
        assert [name for name, _ in await s.entries(ROOT, False, size)] == [b"only"]


@check
async def a_directory_is_emptied_while_it_is_listed(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    await _fill(s, directory, 1000)
    offset, handle = 0, await s.opendir(directory)
    while True:
        offset, part = await s.batch(directory, handle, offset, 25, True)
        if not part:
            break
        for name, _ in part:
            if name not in (b".", b".."):
                await s.fs.unlink(directory, name)
    await s.closedir(directory, handle)
    await s.fs.rmdir(ROOT, b"directory")


@check
async def listing_what_is_no_directory(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    with failing(errno.ENOTDIR):
        await s.entries(ino)


@check
async def deep_trees(s: Subject) -> None:
    depth = 300
    parent = ROOT
    for _ in range(depth):
        parent = await s.mkdir(parent, b"d" * 100)
    ino = await s.file(parent, b"file", b"deep")
    assert await s.read(ino) == b"deep"
    s.forget_all()
    parent = ROOT
    for _ in range(depth):
        parent = (await s.lookup(parent, b"d" * 100)).ino
    assert await s.read((await s.lookup(parent, b"file")).ino) == b"deep"
