"""A directory shown otherwise than it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostfs.source import kind
from tests.contract.subject import Subject, failing
from umlfs.errors import UsageError
from umlfs.filesystem import ROOT, Caller, SetAttr
from umlfs.sources import OpenOptions


async def shown(directory: Path, **extra: str) -> Subject:
    return Subject(await kind.open(str(directory), OpenOptions(extra=extra)))


async def test_everything_seems_to_be_one_users(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    s = await shown(tmp_path, uid="1234", gid="5678")
    for attr in (await s.attr(ROOT), (await s.lookup(ROOT, b"file")).attr, await s.attr(await s.file(ROOT, b"new"))):
        assert (attr.uid, attr.gid) == (1234, 5678)
    for _, entry in await s.entries(ROOT, plus=True):
        assert entry is not None
        assert entry.attr.uid == 1234
    found = os.stat(tmp_path / "new")
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    ino = (await s.lookup(ROOT, b"file")).ino
    assert (await s.set(ino, SetAttr(uid=1234, mode=0o600))).mode & 0o777 == 0o600
    with failing(errno.EPERM):
        await s.set(ino, SetAttr(uid=1))
    s.forget_all()
    await s.fs.close()


@pytest.mark.mapped_root
async def test_mapped_numbers(tmp_path: Path) -> None:
    (tmp_path / "mapped").touch()
    (tmp_path / "other").touch()
    os.chown(tmp_path / "mapped", 10_005, 10_006)
    os.chown(tmp_path / "other", 7, 10_006)
    s = await shown(tmp_path, map="0:10000:10\n1000:20000:1")
    attr = (await s.lookup(ROOT, b"mapped")).attr
    assert (attr.uid, attr.gid) == (5, 6)
    assert (await s.lookup(ROOT, b"other")).attr.uid == 65534
    entry = await s.fs.mkdir(ROOT, b"made", 0o755, 0, Caller(1000, 3, 1))
    assert (entry.attr.uid, entry.attr.gid) == (1000, 3)
    found = os.stat(tmp_path / "made")
    assert (found.st_uid, found.st_gid) == (20_000, 10_003)
    await s.set(entry.ino, SetAttr(uid=4))
    assert os.stat(tmp_path / "made").st_uid == 10_004
    with failing(errno.EINVAL):
        await s.set(entry.ino, SetAttr(uid=11))
    with failing(errno.EINVAL):
        await s.fs.mkdir(ROOT, b"refused", 0o755, 0, Caller(11, 0, 1))
    await s.fs.close()


async def test_squashed(tmp_path: Path) -> None:
    s = await shown(tmp_path, squash="")
    entry = await s.fs.symlink(ROOT, b"link", b"x", Caller(4321, 4321, 1))
    assert os.lstat(tmp_path / "link").st_uid == os.geteuid()
    assert (await s.set(entry.ino, SetAttr(uid=99))).uid == os.geteuid()
    await s.fs.close()


async def test_append_only(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\n")
    s = await shown(tmp_path, append="")
    ino = (await s.lookup(ROOT, b"log")).ino
    opened = await s.fs.open(ino, os.O_RDWR | os.O_TRUNC)
    assert opened.direct
    for offset, piece in ((0, b"second\n"), (2, b"third\n"), (1 << 20, b"fourth\n")):
        await s.fs.write_from(ino, opened.handle, offset, [memoryview(piece)])
    with failing(errno.EBADF):
        await s.fs.write_from(ino, 0, 0, [memoryview(b"xx")])
    with failing(errno.EOPNOTSUPP):
        await s.fs.copy_file_range(ino, opened.handle, 0, ino, opened.handle, 2, 3)
    with failing(errno.EPERM):
        await s.fs.fallocate(ino, opened.handle, 3, 0, 4096)
    await s.close(ino, opened.handle)
    assert (await s.set(ino, SetAttr(size=3))).size == 26
    entry, again = await s.fs.create(ROOT, b"log", 0o644, os.O_WRONLY | os.O_TRUNC, 0, s.caller)
    await s.fs.write_from(entry.ino, again.handle, 0, [memoryview(bytes(range(256)) * 1024)])
    await s.close(s.counted(entry).ino, again.handle)
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\nthird\nfourth\n" + bytes(range(256)) * 1024
    s.forget_all()
    await s.fs.close()


async def test_append_only_writes_what_is_new_anywhere(tmp_path: Path) -> None:
    s = await shown(tmp_path, append="", cache="always")
    assert not s.fs.traits.writeback
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    entry, opened = await s.fs.create(ROOT, b"new", 0o644, flags, 0, s.caller)
    await s.fs.write_from(entry.ino, opened.handle, 4, [memoryview(b"body")])
    await s.fs.write_from(entry.ino, opened.handle, 0, [memoryview(b"head")])
    await s.close(s.counted(entry).ino, opened.handle)
    with failing(errno.EEXIST):
        await s.fs.create(ROOT, b"new", 0o644, flags | os.O_EXCL, 0, s.caller)
    assert (tmp_path / "new").read_bytes() == b"headbody"
    s.forget_all()
    await s.fs.close()


async def test_append_only_keeps_files(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\n")
    s = await shown(tmp_path, append="")
    ino = (await s.lookup(ROOT, b"log")).ino
    await s.file(ROOT, b"new")
    with failing(errno.EPERM):
        await s.fs.unlink(ROOT, b"log")
    with failing(errno.EPERM):
        await s.fs.rename(ROOT, b"new", ROOT, b"log")
    await s.fs.rename(ROOT, b"log", ROOT, b"old-log")
    await s.set(ino, SetAttr(size=10))
    assert (tmp_path / "old-log").read_bytes() == b"first\n" + bytes(4)
    await s.mkdir(ROOT, b"directory")
    await s.fs.rmdir(ROOT, b"directory")
    s.forget_all()
    await s.fs.close()


async def test_hidden_names(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "secret.key").touch()
    (tmp_path / "kept" / "file").touch()
    s = await shown(tmp_path, hide=".git\n*.key")
    kept = (await s.lookup(ROOT, b"kept")).ino
    assert await s.names() == [b"kept"]
    assert await s.names(kept) == [b"file"]
    assert [name for name, _ in await s.entries(kept, plus=True)] == [b"file"]
    assert await s.find(ROOT, b".git") is None
    with failing(errno.EPERM):
        await s.fs.mkdir(kept, b".git", 0o755, 0, s.caller)
    with failing(errno.EPERM):
        await s.fs.rename(kept, b"file", kept, b"public.key")
    with failing(errno.ENOENT):
        await s.fs.unlink(kept, b"secret.key")
    with failing(errno.ENOTEMPTY):
        await s.fs.unlink(kept, b"file")
        await s.fs.rmdir(ROOT, b"kept")
    assert (tmp_path / "kept" / "secret.key").exists()
    await s.fs.close()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"uid": "root"}, "uid=root"),
        ({"gid": str(1 << 32)}, "gid="),
        ({"map": "0:1"}, "map=0:1"),
        ({"map": "0:1000:0"}, "no number"),
        ({"map": "0:1000:5\n4:2000:1"}, "two maps"),
        ({"map": "0:1000:5\n10:1004:1"}, "two maps"),
        ({"append": "yes"}, "append=yes"),
        ({"squash": "0"}, "squash=0"),
        ({"colour": ""}, "unknown option 'colour'"),
    ],
)
async def test_options_that_mean_nothing(option: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        await shown(tmp_path, **option)
