"""The host's side: copies, what people do by hand, checks and repairs, symlinks, and the lock."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from humfs.check import check
from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.findings import Kind
from humfs.tools import info
from humfs.volume import create
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, Caller, SetAttr

Tree = dict[str, tuple[int, int, int, int, int, bytes]]


async def populate(root: Path) -> None:
    """A tree with some of everything."""
    fs = open_filesystem(root)
    s = Subject(fs)
    etc = await s.mkdir(ROOT, b"etc", 0o755)
    deep = await s.mkdir(etc, b"deep", 0o2750)
    for number in range(10):
        ino = await s.file(deep, b"file%d" % number, b"contents %d" % number, 0o600 + number)
        await s.set(ino, SetAttr(uid=number, gid=number + 100))
    await s.link(ino, etc, b"hard")
    await s.link(ino, ROOT, b"hard")
    await fs.setxattr(ino, b"user.a", b"b")
    await s.symlink(etc, b"link", b"deep/file1")
    await s.mknod(etc, b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    suid = await s.file(ROOT, b"suid", b"#!", 0o4755)
    await s.set(suid, SetAttr(uid=0, mode=0o4755))
    await fs.close()


async def snapshot(fs: HumFilesystem) -> Tree:
    """All there is, by path: inode, mode, uid, gid, links, contents or target."""
    s = Subject(fs)
    found: Tree = {}

    async def below(ino: int, path: str) -> None:
        for name, entry in await s.entries(ino, plus=True):
            assert entry is not None
            attr = entry.attr
            data = b""
            if stat.S_ISREG(attr.mode):
                data = await s.read(entry.ino)
            elif stat.S_ISLNK(attr.mode):
                data = await fs.readlink(entry.ino)
            where = f"{path}/{os.fsdecode(name)}"
            found[where] = (entry.ino, attr.mode, attr.uid, attr.gid, attr.nlink, data)
            if stat.S_ISDIR(attr.mode):
                await below(entry.ino, where)

    await below(ROOT, "")
    s.forget_all()
    return found


async def contents(root: Path) -> Tree:
    fs = open_filesystem(root)
    try:
        return await snapshot(fs)
    finally:
        await fs.close()


def copy(root: Path, target: Path, how: str) -> None:
    target.mkdir()
    commands = {
        "cp": f"cp -a {root}/. {target}",
        "cp, links lost": f"cp -r {root}/. {target}",
        "tar": f"tar c -C {root} . | tar x -C {target}",
    }
    subprocess.run(commands[how], shell=True, check=True)


@pytest.mark.parametrize("how", ["cp", "tar", "cp, links lost"])
@pytest.mark.logs_warnings
async def test_a_copy_is_bound_anew(root: Path, tmp_path: Path, how: str) -> None:
    await populate(root)
    before = await contents(root)
    copy(root, tmp_path / "copy", how)
    assert await contents(tmp_path / "copy") == before
    assert check(tmp_path / "copy") == []
    assert await contents(tmp_path / "copy") == before
    assert await contents(root) == before
    names = [tmp_path / "copy/data" / name for name in ("hard", "etc/hard", "etc/deep/file9")]
    assert len({path.stat().st_ino for path in names}) == 1


@pytest.mark.logs_warnings
async def test_names_of_one_file_that_became_different_are_split(root: Path, tmp_path: Path) -> None:
    await populate(root)
    copy(root, tmp_path / "copy", "cp, links lost")
    (tmp_path / "copy/data/etc/hard").write_bytes(b"another")
    found = await contents(tmp_path / "copy")
    assert found["/etc/hard"][5] == b"another"
    assert found["/hard"][5] == found["/etc/deep/file9"][5] == b"contents 9"
    assert found["/etc/hard"][1:4] == found["/hard"][1:4]
    assert found["/etc/hard"][0] != found["/hard"][0] or found["/etc/hard"][0] != found["/etc/deep/file9"][0]
    assert check(tmp_path / "copy") == []


# By hand --------------------------------------------------------------------------------------


async def test_files_put_in_by_hand_are_the_default_owners(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    create(root, 1 << 30, 33, 44)
    await populate(root)
    (root / "data/etc/new").mkdir()
    (root / "data/etc/new/tool").write_bytes(b"#!/bin/sh")
    (root / "data/etc/new/tool").chmod(0o4755)
    (root / "data/etc/secret").write_bytes(b"x")
    (root / "data/etc/secret").chmod(0)
    fs = open_filesystem(root)
    found = await snapshot(fs)
    assert found["/etc/new/tool"][1:] == (stat.S_IFREG | 0o755, 33, 44, 1, b"#!/bin/sh")
    assert found["/etc/new"][1:5] == (stat.S_IFDIR | 0o755, 33, 44, 2)
    assert found["/etc/secret"][5] == b"x"
    assert {finding.kind for finding in fs.volume.findings} == {Kind.ADOPTED}
    await fs.close()
    assert any("/etc/new/tool" in line for line in info(root).repairs)
    assert check(root) == []
    again = open_filesystem(root)
    assert again.volume.findings == []
    await again.close()


async def test_renames_by_hand_keep_the_metadata(root: Path) -> None:
    await populate(root)
    before = await contents(root)
    data = root / "data"
    (data / "etc/deep/file3").rename(data / "moved")
    (data / "etc/deep").rename(data / "deeper")
    after = await contents(root)
    assert after["/moved"] == before["/etc/deep/file3"]
    assert after["/deeper/file4"] == before["/etc/deep/file4"]
    assert after["/deeper"][0] == before["/etc/deep"][0]
    assert "/etc/deep" not in after
    assert check(root) == []


async def test_an_editor_that_replaces_a_file_keeps_its_owner(root: Path) -> None:
    await populate(root)
    before = await contents(root)
    path = root / "data/suid"
    (root / "data/suid.new").write_bytes(b"edited")
    (root / "data/suid.new").rename(path)
    after = await contents(root)
    assert after["/suid"][:5] == before["/suid"][:5]
    assert after["/suid"][5] == b"edited"


async def test_removals_by_hand(root: Path) -> None:
    await populate(root)
    shutil.rmtree(root / "data/etc/deep")
    (root / "data/suid").unlink()
    after = await contents(root)
    assert set(after) == {"/etc", "/etc/hard", "/etc/link", "/etc/null", "/hard"}
    assert after["/hard"][4] == 2
    assert check(root) == []


async def test_a_name_that_appears_while_mounted(root: Path) -> None:
    fs = open_filesystem(root)
    s = Subject(fs)
    (root / "data/file").write_bytes(b"by hand")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            await s.file(ROOT, b"file")
    assert await s.read((await s.lookup(ROOT, b"file")).ino) == b"by hand"
    other = await s.file(ROOT, b"other")
    (root / "data/second").write_bytes(b"by hand")
    with pytest.raises(FileExistsError):
        await fs.rename(ROOT, b"other", ROOT, b"second")
    await fs.rename(ROOT, b"other", ROOT, b"second")
    assert (await s.lookup(ROOT, b"second")).ino == other
    await fs.close()


# Check ----------------------------------------------------------------------------------------

DAMAGE = {
    "lost row": ("DELETE FROM dentry WHERE name = X'66696C6531'", Kind.MOVED),
    "lost inode": ("DELETE FROM inode WHERE mode & 2048", Kind.ADOPTED),
    "links": ("UPDATE inode SET nlink = 7 WHERE mode & 2048", Kind.LINKS),
    "directory links": ("UPDATE inode SET nlink = 7 WHERE ino = 1", Kind.LINKS),
    "loop": ("INSERT INTO dentry (parent, name, ino) VALUES (3, X'61', 3)", Kind.LOST),
    "attribute": ("INSERT INTO xattr VALUES (999, X'61', X'61')", Kind.UNREACHABLE),
    "name of nothing": ("INSERT INTO dentry (parent, name, ino) VALUES (1, X'61', 999)", Kind.UNREACHABLE),
    "type": ("UPDATE inode SET mode = 16877 WHERE mode & 2048", Kind.ADOPTED),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_and_mended(root: Path, damage: str) -> None:
    await populate(root)
    statement, kind = DAMAGE[damage]
    with sqlite3.connect(root / "metadata.sqlite") as rows:
        rows.execute(statement)
    rows.close()
    found = check(root)
    assert kind in {finding.kind for finding in found}
    assert check(root) == found  # looking changes nothing
    assert check(root, repair=True) == found
    assert check(root) == []
    assert len(info(root).repairs) >= len(found)
    after = await contents(root)
    assert after["/etc/deep/file4"][2:] == (4, 104, 1, b"contents 4")


async def test_a_wrong_count_is_found(root: Path) -> None:
    await populate(root)
    path = root / "superblock"
    path.write_text(path.read_text().replace("used ", "used 1"))
    assert [finding.kind for finding in check(root)] == [Kind.SPACE]
    check(root, repair=True)
    assert check(root) == []


def test_a_database_of_something_else(root: Path) -> None:
    (root / "metadata.sqlite").write_bytes(b"no database at all" * 100)
    assert "not a database" in str(check(root)[0])
    with pytest.raises(UmlError, match=r"not a database; .*check --repair|not a database"):
        open_filesystem(root)


def test_a_newer_schema(root: Path) -> None:
    with sqlite3.connect(root / "metadata.sqlite") as rows:
        rows.execute("PRAGMA user_version = 99")
    rows.close()
    with pytest.raises(UmlError, match="newer"):
        open_filesystem(root)


# Confinement ----------------------------------------------------------------------------------


async def test_a_directory_replaced_by_a_symlink_leads_nowhere(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file1").write_bytes(b"host's own")
    await populate(root)
    fs = open_filesystem(root)
    s = Subject(fs)
    etc = (await s.lookup(ROOT, b"etc")).ino
    deep = (await s.lookup(etc, b"deep")).ino
    shutil.rmtree(root / "data/etc/deep")
    (root / "data/etc/deep").symlink_to(secret)
    with pytest.raises(OSError, match=r"."):
        await s.read((await s.lookup(deep, b"file1")).ino)
    with pytest.raises(OSError, match=r"."):
        await s.file(deep, b"new")
    assert [path.name for path in secret.iterdir()] == ["file1"]
    await fs.close()


async def test_a_file_replaced_by_a_symlink_or_a_fifo(root: Path, tmp_path: Path) -> None:
    await populate(root)
    fs = open_filesystem(root)
    s = Subject(fs)
    ino = (await s.lookup(ROOT, b"suid")).ino
    for replace in (lambda path: path.symlink_to(tmp_path / "secret"), os.mkfifo):
        (root / "data/suid").unlink(missing_ok=True)
        replace(root / "data/suid")
        with pytest.raises(OSError, match=r"."):
            await s.read(ino)
        with pytest.raises(OSError, match=r"."):
            await s.write(ino, b"x")
    assert not (tmp_path / "secret").exists()
    await fs.close()


async def test_symlinks_are_shown_not_followed(root: Path) -> None:
    fs = open_filesystem(root)
    s = Subject(fs)
    link = await s.symlink(ROOT, b"link", b"/etc/passwd")
    with failing(22):
        await s.read(link)
    with failing(20):
        await s.file(link, b"x")
    await fs.close()


async def test_descriptors_stay_few(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("humfs.host.limits", lambda: (16, 16))
    fs = open_filesystem(root)
    s = Subject(fs)
    at = ROOT
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        at = await s.mkdir(at, b"directory")
        await s.file(at, b"file", b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + 32
    for ino in list(s.lookups):
        await s.fs.getattr(ino)
    assert await s.read((await s.lookup(at, b"file")).ino) == b"x"
    await fs.close()


async def test_memory_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = open_filesystem(root)
    monkeypatch.setattr(fs._core.cache, "most", 100)
    s = Subject(fs)
    inos = [await s.file(ROOT, b"%d" % number, b"%d" % number, 0o640) for number in range(1000)]
    assert len(fs._core.inodes) <= 1100
    for number, ino in enumerate(inos):
        assert await s.read(ino) == b"%d" % number
        await fs.setattr(ino, SetAttr(uid=number))
    assert [(await s.attr(ino)).uid for ino in inos] == list(range(1000))
    await fs.close()
    assert check(root) == []


async def test_what_is_not_on_the_disk_is_compared_after_a_boot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await populate(root)
    fs = open_filesystem(root)
    await Subject(fs).file(ROOT, b"new", b"x")
    await fs.close(durable=False)
    (root / "data/new").write_bytes(b"longer")  # as if it had not been what it was
    fs = open_filesystem(root)
    assert fs.volume.was_clean
    await fs.close(durable=False)
    monkeypatch.setattr("humfs.volume.boot_token", lambda: 77)
    fs = open_filesystem(root)
    assert not fs.volume.was_clean
    assert fs.volume.findings == []
    assert fs.volume.used == fs.volume.count_used()
    await fs.close()
    assert check(root) == []


# The lock -------------------------------------------------------------------------------------


def _open_elsewhere(root: Path) -> str:
    """What another process says that opens it."""
    code = "import sys, pathlib, humfs.filesystem as f; f.open_filesystem(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


async def test_a_second_opener_is_refused_with_the_holder(root: Path) -> None:
    fs = open_filesystem(root)
    with pytest.raises(UmlError, match=rf"in use by this process \(pid {os.getpid()}\)"):
        open_filesystem(root)
    assert f"(pid {os.getpid()})" in _open_elsewhere(root)
    assert info(root).holder == os.getpid()
    await fs.close()
    assert info(root).holder is None
    await open_filesystem(root).close()


async def test_a_read_only_filesystem_takes_no_change(root: Path) -> None:
    await populate(root)
    before = (root / "superblock").read_text()
    fs = open_filesystem(root, read_only=True)
    s = Subject(fs)
    for change in (
        s.file(ROOT, b"new"),
        s.mkdir(ROOT, b"new"),
        fs.unlink(ROOT, b"suid"),
        fs.rename(ROOT, b"suid", ROOT, b"new"),
        fs.setattr((await s.lookup(ROOT, b"suid")).ino, SetAttr(mode=0)),
        fs.link((await s.lookup(ROOT, b"suid")).ino, ROOT, b"new"),
        fs.symlink(ROOT, b"new", b"x", Caller()),
    ):
        with failing(30):
            await change
    assert await s.read((await s.lookup(ROOT, b"suid")).ino) == b"#!"
    await fs.close()
    assert (root / "superblock").read_text() == before
    assert check(root) == []


def test_a_lock_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(UmlError, match="lock: No space left"):
            open_filesystem(root)
    assert info(root).holder is None
