"""`hostfs:DIR` as a source."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostfs import HostFilesystem
from hostfs.source import kind
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.ordinary import OrdinaryUser
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import ROOT
from umlfs.sources import OpenOptions, parse


def test_claims_directories_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert 0 < kind.claims(tmp_path) < 100
    assert kind.claims(tmp_path / "file") == 0
    assert kind.claims(tmp_path / "missing") == 0


async def test_a_directory_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for word in (str(tmp_path), f"hostfs:{tmp_path}"):
        source = parse(word)
        assert source.scheme == "hostfs"
        filesystem = await source.open()
        assert isinstance(filesystem, HostFilesystem)
        assert not filesystem.traits.read_only
        assert (await filesystem.lookup(ROOT, b"file")).ino
        await filesystem.close()


async def test_options(tmp_path: Path) -> None:
    filesystem = await kind.open(str(tmp_path), OpenOptions(read_only=True, extra={"cache": "always"}))
    assert filesystem.traits.read_only
    assert not filesystem.traits.shared
    await filesystem.close()
    with pytest.raises(UsageError, match="unknown option 'colour'"):
        await kind.open(str(tmp_path), OpenOptions(extra={"colour": "blue"}))
    with pytest.raises(UsageError, match="cache=sometimes"):
        await kind.open(str(tmp_path), OpenOptions(extra={"cache": "sometimes"}))


async def test_what_is_no_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for argument, message in (
        (str(tmp_path / "fifo"), "not a directory"),
        (str(tmp_path / "missing"), "no such directory"),
        ("", "no directory named"),
        ("/proc/self", "makes it up"),
    ):
        with pytest.raises(UsageError, match=message):
            await kind.open(argument, OpenOptions())
    with pytest.raises(UmlError, match="symbolic links"):
        await kind.open(str(tmp_path / "loop"), OpenOptions())


async def test_one_file(tmp_path: Path) -> None:
    """It is whatever has its name; what is open stays what it was."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "other").touch()
    s = Subject(await kind.open(str(tmp_path / "file"), OpenOptions()))
    assert await s.names() == [b"file"]
    assert await s.find(ROOT, b"other") is None
    ino = (await s.lookup(ROOT, b"file")).ino
    handle = await s.open(ino)
    (tmp_path / "other").write_bytes(b"newer")
    (tmp_path / "other").rename(tmp_path / "file")
    data = bytearray(8)
    assert await s.fs.read_into(ino, handle, 0, [memoryview(data)]) == 3
    assert await s.read(ino) == b"newer"
    assert (await s.attr(ino)).size == 5
    assert (await s.lookup(ROOT, b"file")).ino == ino
    with failing(errno.EBUSY):
        await s.fs.unlink(ROOT, b"file")
    with failing(errno.EPERM):
        await s.fs.mkdir(ROOT, b"new", 0o755, 0, s.caller)
    await s.close(ino, handle)
    (tmp_path / "file").unlink()
    with failing(errno.ENOENT):
        await s.attr(ino)
    await s.fs.close()


async def test_a_symlink_to_a_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").touch()
    (tmp_path / "link").symlink_to("directory")
    filesystem = await kind.open(str(tmp_path / "link"), OpenOptions())
    assert (await filesystem.lookup(ROOT, b"file")).ino
    await filesystem.close()


def test_a_directory_of_others(user: OrdinaryUser) -> None:
    """Its guest would boot, and find nothing."""
    done = user.run(user.uml("run", "--mount", "/src=hostfs:/root", "--", "true"))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "uml: /root: Permission denied; use a directory that you may read\n"
