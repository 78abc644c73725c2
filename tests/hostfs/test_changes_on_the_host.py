"""What others change behind our back."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hostfs.opening
from hostfs import Cache, HostFilesystem
from hostfs.inodes import Inode
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.hostfs.features import features_of
from umlfs.filesystem import ROOT, SetAttr
from umlfs.host.syscalls import How, failure


@pytest.fixture(params=["stateless", "handles"])
async def s(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    filesystem = HostFilesystem(tmp_path, stateless=request.param == "stateless")
    yield Subject(filesystem, features_of(tmp_path))
    await filesystem.close()


async def test_contents_and_attributes_are_the_latest(s: Subject, tmp_path: Path) -> None:
    path = tmp_path / "file"
    ino = await s.file(ROOT, b"file", b"guest")
    path.write_bytes(b"from the host")
    path.chmod(0o640)
    assert await s.read(ino) == b"from the host"
    attr = await s.attr(ino)
    assert (attr.size, attr.mode & 0o777) == (13, 0o640)
    os.truncate(path, 4)
    assert await s.read(ino) == b"from"


async def test_a_name_that_comes_and_goes(s: Subject, tmp_path: Path) -> None:
    assert await s.find(ROOT, b"file") is None
    (tmp_path / "file").write_bytes(b"x")
    assert await s.read((await s.lookup(ROOT, b"file")).ino) == b"x"
    (tmp_path / "file").unlink()
    assert await s.find(ROOT, b"file") is None
    assert await s.names() == []


async def test_a_file_replaced(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    old = (await s.lookup(ROOT, b"file")).ino
    (tmp_path / "new").rename(tmp_path / "file")
    with failing(errno.ESTALE):
        await s.attr(old)
    with failing(errno.ESTALE):
        await s.read(old)
    new = (await s.lookup(ROOT, b"file")).ino
    assert new != old
    assert await s.read(new) == b"new"


async def test_an_open_file_replaced(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    ino = (await s.lookup(ROOT, b"file")).ino
    async with s.opened(ino) as handle:
        data = bytearray(3)
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
        (tmp_path / "new").rename(tmp_path / "file")
        assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
        assert data == b"old"


async def test_a_file_turned_into_a_directory(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"x")
    file = (await s.lookup(ROOT, b"name")).ino
    (tmp_path / "name").unlink()
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "below").write_bytes(b"y")
    directory = (await s.lookup(ROOT, b"name")).ino
    assert directory != file
    assert await s.read((await s.lookup(directory, b"below")).ino) == b"y"


async def test_a_renamed_file_is_found_under_its_new_name(s: Subject, tmp_path: Path) -> None:
    await s.file(ROOT, b"file", b"x")
    (tmp_path / "file").rename(tmp_path / "renamed")
    assert await s.find(ROOT, b"file") is None
    assert await s.read((await s.lookup(ROOT, b"renamed")).ino) == b"x"


async def test_a_moved_directory_takes_what_is_known_below(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "one" / "below").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "below" / "file").write_bytes(b"x")
    one = (await s.lookup(ROOT, b"one")).ino
    below = (await s.lookup(one, b"below")).ino
    file = (await s.lookup(below, b"file")).ino
    (tmp_path / "one").rename(tmp_path / "two" / "moved")
    two = (await s.lookup(ROOT, b"two")).ino
    assert (await s.lookup(two, b"moved")).ino == one
    assert await s.read(file) == b"x"


async def test_a_parent_and_child_that_change_places(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    one = (await s.lookup(ROOT, b"one")).ino
    two = (await s.lookup(one, b"two")).ino
    (tmp_path / "one" / "two").rename(tmp_path / "two")
    (tmp_path / "one").rename(tmp_path / "two" / "one")
    two = (await s.lookup(ROOT, b"two")).ino
    one = (await s.lookup(two, b"one")).ino
    await s.file(one, b"file", b"x")
    assert (tmp_path / "two" / "one" / "file").read_bytes() == b"x"
    assert await s.names(two) == [b"one"]


async def test_a_tree_removed(s: Subject, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_bytes(b"x")
    directory = (await s.lookup(ROOT, b"directory")).ino
    file = (await s.lookup(directory, b"file")).ino
    (tmp_path / "directory" / "file").unlink()
    (tmp_path / "directory").rmdir()
    with failing(errno.ESTALE):
        await s.attr(file)
    with failing(errno.ENOENT, errno.ESTALE):
        await s.file(directory, b"new")
    assert await s.find(ROOT, b"directory") is None


async def test_hard_links_made_on_the_host(s: Subject, tmp_path: Path) -> None:
    ino = await s.file(ROOT, b"one", b"x")
    os.link(tmp_path / "one", tmp_path / "two")
    entry = await s.lookup(ROOT, b"two")
    assert (entry.ino, entry.attr.nlink) == (ino, 2)
    (tmp_path / "two").unlink()
    assert await s.read(ino) == b"x"


async def test_lifetimes_follow_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache, seconds in ((Cache.ALWAYS, 3600), (Cache.AUTO, 1), (Cache.NEVER, 0)):
        filesystem = HostFilesystem(tmp_path, cache=cache)
        entry = await filesystem.lookup(ROOT, b"file")
        assert entry.entry_valid_ns == entry.attr_valid_ns == seconds * 10**9
        assert (await filesystem.getattr(entry.ino))[1] == seconds * 10**9
        missing = await filesystem.lookup(ROOT, b"missing")
        assert (missing.ino, missing.entry_valid_ns) == (0, seconds * 10**9)
        await filesystem.close()


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncIterator[Subject]:
    """A filesystem that is asked whenever a file is opened."""
    filesystem = HostFilesystem(tmp_path)
    yield Subject(filesystem, features_of(tmp_path))
    await filesystem.close()


async def read_by(s: Subject, ino: int, handle: int) -> bytes:
    data = bytearray(64)
    return bytes(data[: await s.fs.read_into(ino, handle, 0, [memoryview(data)])])


@pytest.mark.parametrize("change", ["renamed", "replaced", "removed"])
async def test_an_open_file_stays_open(change: str, opening: Subject, tmp_path: Path) -> None:
    """It is read, appended to, looked at and changed by its number alone, as fstat and fchmod come to us."""
    s = opening
    path, kept = tmp_path / "file", tmp_path / "kept"
    path.write_bytes(b"old")
    os.link(path, kept) if change == "removed" else None
    ino = (await s.lookup(ROOT, b"file")).ino
    reader, writer = await s.open(ino, os.O_RDONLY), await s.open(ino, os.O_WRONLY)
    if change == "renamed":
        path.rename(kept)
    elif change == "replaced":
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(path)
    else:
        path.unlink()
    s.fs.resolver.descriptors.shrink(-1)  # type: ignore[attr-defined]
    assert await s.find(ROOT, b"file") is None if change != "replaced" else await s.find(ROOT, b"file")
    assert (await s.attr(ino)).size == 3
    assert await s.fs.write_from(ino, writer, 3, [memoryview(b"er")]) == 2
    assert await read_by(s, ino, reader) == b"older"
    await s.set(ino, SetAttr(mode=0o600, size=4))
    assert (await s.attr(ino)).mode & 0o777 == 0o600
    assert await read_by(s, ino, reader) == b"olde"
    if change != "replaced":
        assert kept.read_bytes() == b"olde"
    await s.close(ino, writer)
    assert await read_by(s, ino, reader) == b"olde"
    await s.close(ino, reader)


async def test_what_was_closed_is_let_go(opening: Subject, tmp_path: Path) -> None:
    """Once whoever wrote a program has closed it, the host can run it; and what is removed is freed."""
    s = opening
    ino = await s.file(ROOT, b"program", Path("/bin/true").read_bytes(), mode=0o755)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0
    before = len(os.listdir("/proc/self/fd"))
    handle = await s.open(ino)
    (tmp_path / "program").unlink()
    await s.close(ino, handle)
    await s.fs.resolver.closer.drain()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_directory_that_is_held_stays(opening: Subject, tmp_path: Path) -> None:
    """As the current directory of a process is: nothing opens it."""
    (tmp_path / "one" / "two").mkdir(parents=True)
    one = (await opening.lookup(ROOT, b"one")).ino
    two = (await opening.lookup(one, b"two")).ino
    await opening.file(two, b"first")
    (tmp_path / "one").rename(tmp_path / "moved")
    await opening.file(two, b"second")
    assert sorted(os.listdir(tmp_path / "moved" / "two")) == ["first", "second"]


@pytest.mark.real_root
async def test_a_way_back_without_a_name(opening: Subject, tmp_path: Path) -> None:
    """Where the host's kernel lets us (root), a renamed directory is found without any descriptor."""
    (tmp_path / "one").mkdir()
    one = (await opening.lookup(ROOT, b"one")).ino
    await opening.file(one, b"first")
    while opening.fs.resolver.descriptors.shrink(-1):  # type: ignore[attr-defined]
        pass
    (tmp_path / "one").rename(tmp_path / "moved")
    assert await opening.names(one) == [b"first"]
    while opening.fs.resolver.descriptors.shrink(-1):  # type: ignore[attr-defined]
        pass
    (tmp_path / "moved" / "first").unlink()
    (tmp_path / "moved").rmdir()
    with failing(errno.ESTALE):
        await opening.attr(one)


async def test_a_file_that_cannot_be_had_for_both(
    opening: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by one who may not read it, then read by one who may not write: each keeps what it has."""
    s = opening
    (tmp_path / "file").write_bytes(b"x")
    ino = (await s.lookup(ROOT, b"file")).ino
    allowed = {os.O_WRONLY}
    real = hostfs.opening.Opener._open_verified

    def guarded(self: hostfs.opening.Opener, inode: Inode, how: How, wait: bool) -> int:
        if how.open_flags & os.O_ACCMODE not in allowed:
            raise failure(errno.EACCES)
        return real(self, inode, how, wait)

    monkeypatch.setattr(hostfs.opening.Opener, "_open_verified", guarded)
    writer = await s.open(ino, os.O_WRONLY)
    allowed = {os.O_RDONLY}
    reader = await s.open(ino, os.O_RDONLY)
    assert await s.fs.write_from(ino, writer, 0, [memoryview(b"yz")]) == 2
    assert await read_by(s, ino, reader) == b"yz"
    await s.close(ino, writer)
    assert await read_by(s, ino, reader) == b"yz"
    await s.close(ino, reader)
