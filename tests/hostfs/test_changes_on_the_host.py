"""What others change behind our back."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostfs import Cache, HostFilesystem
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.hostfs.features import features_of
from umlfs.filesystem import ROOT


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
