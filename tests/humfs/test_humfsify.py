"""humfsify in place and back, and the historical one's directories: mounted, converted, restored."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from humfs import humfsify as module
from humfs import superblock as superblocks
from humfs.check import check
from humfs.filesystem import open_filesystem
from humfs.humfsify import humfsify, restore
from humfs.legacy import losses, parse, to_shadow, to_sqlite
from humfs.source import kind
from humfs.volume import Volume
from runtime.cli.historical import humfsify as program
from tests import needs
from tests.contract.filesystem import CHECKS, Check, Features, Subject, name_of
from tests.humfs import trees
from umlfs.errors import UmlError
from umlfs.filesystem import ROOT, Filesystem, SetAttr
from umlfs.host.syscalls import chown
from umlfs.sources import OpenOptions

SIZE = 1 << 30
NOBODY = 65534
HISTORICAL = Path("/usr/bin/humfsify")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a tree of root's in data/."""
    needs.root()
    (tmp_path / "fs").mkdir()
    trees.make(tmp_path / "fs/data")
    trees.add_socket(tmp_path / "fs/data")
    trees.add_linked_device(tmp_path / "fs/data")
    return tmp_path / "fs"


def everything(root: Path) -> list[Path]:
    """All paths below, but symlinks."""
    return [path for path in root.rglob("*") if not path.is_symlink()]


def names(root: Path) -> list[str]:
    """What is in the directory, but for the lock."""
    return sorted(path.name for path in root.iterdir() if path.name != "lock")


def owners(root: Path) -> set[tuple[int, int]]:
    return {(at.st_uid, at.st_gid) for at in (path.lstat() for path in (root, *root.rglob("*")))}


# Ours -----------------------------------------------------------------------------------------


async def test_the_guest_sees_what_root_saw(tree: Path) -> None:
    before = trees.facts(tree / "data")
    humfsify(tree, NOBODY, 1, SIZE)
    assert owners(tree) == {(NOBODY, 1)}
    modes = {path.lstat().st_mode for path in everything(tree / "data")}
    assert modes == {stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700}
    assert check(tree) == []
    fs: Filesystem = open_filesystem(tree)
    s = Subject(fs)
    for path, (mode, uid, gid, rdev, links, mtime, contents, _) in before.items():
        ino = ROOT
        for part in path.encode("utf-8", "surrogateescape").split(b"/"):
            ino = ino if part == b"." else (await s.lookup(ino, part)).ino
        attr = await s.attr(ino)
        assert (attr.mode, attr.uid, attr.gid, attr.rdev) == (mode, uid, gid, rdev), path
        assert links in (0, attr.nlink)
        assert mtime in (0, attr.mtime_ns)
        if stat.S_ISREG(mode):
            assert await s.read(ino) == contents
    f2 = (await s.lookup((await s.lookup(ROOT, b"dir")).ino, b"f2")).ino
    assert await fs.getxattr(f2, b"user.note") == b"\x00binary\xff"
    await fs.close()


async def test_there_and_back_again(tree: Path) -> None:
    before = trees.facts(tree / "data")
    humfsify(tree, NOBODY, NOBODY, SIZE)
    restore(tree)
    assert trees.facts(tree / "data") == before
    assert names(tree) == ["data", "superblock"]
    humfsify(tree, NOBODY, NOBODY, SIZE)
    restore(tree)
    assert trees.facts(tree / "data") == before


def test_a_second_run_is_refused_and_harms_nothing(tree: Path) -> None:
    before = trees.facts(tree / "data")
    humfsify(tree, NOBODY, NOBODY, SIZE)
    with pytest.raises(UmlError, match="already a humfs"):
        humfsify(tree, NOBODY, NOBODY, SIZE)
    restore(tree)
    assert trees.facts(tree / "data") == before


def test_a_tree_that_does_not_fit(tree: Path) -> None:
    before = trees.facts(tree / "data")
    (tree / "superblock").write_text("")
    with pytest.raises(UmlError, match="Current disk usage greater than the requested size - "):
        humfsify(tree, NOBODY, NOBODY, 4096)
    assert trees.facts(tree / "data") == before
    humfsify(tree, NOBODY, NOBODY, SIZE)
    restore(tree)
    assert trees.facts(tree / "data") == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(0, 13, 2))
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.logs_warnings
def test_killed_half_way_it_goes_on(tree: Path, monkeypatch: pytest.MonkeyPatch, step: int, backward: bool) -> None:
    """Wherever it stops, the same command again leads to the same result."""
    before = trees.facts(tree / "data")
    if backward:
        humfsify(tree, NOBODY, NOBODY, SIZE)
    left = step

    def stop(function: object) -> object:
        def wrapped(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            assert callable(function)
            return function(*arguments, **named)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(module, "chown", stop(chown))
        with pytest.raises(Killed):
            restore(tree) if backward else humfsify(tree, NOBODY, NOBODY, SIZE)
    if backward:
        restore(tree)
    else:
        humfsify(tree, NOBODY, NOBODY, SIZE)
        assert check(tree) == []
        restore(tree)
    assert trees.facts(tree / "data") == before


def test_a_tree_that_changes_meanwhile_leads_root_nowhere(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's own")
    real = module._hand_over

    def swap(*arguments: object) -> None:
        (tree / "data/dir/f2").unlink()
        os.link(secret, tree / "data/dir/f2")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_hand_over", swap)
    with pytest.raises(UmlError, match="replaced while humfsify ran"):
        humfsify(tree, NOBODY, NOBODY, SIZE)
    assert secret.stat().st_uid == 0


# The program ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Usage: "),
        (["a", "b"], "Usage: "),
        (["-r", "x"], "Usage: "),
        (["nobody-knows", "0", "1G"], "User 'nobody-knows' not present in the password file\n"),
        (["0", "nobody-knows", "1G"], "Group 'nobody-knows' not present in the groups file\n"),
        (["0", "0", "10X"], "Bad filesystem size - '10X'\n"),
    ],
)
def test_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(arguments) == 1
    assert capsys.readouterr().err.startswith(says)


def test_in_the_current_directory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trees.facts(tree / "data")
    monkeypatch.chdir(tree)
    assert program.run(["nobody", "daemon", "512M"]) == 0
    said = superblocks.read(tree)
    assert (said.version, said.metadata, said.total) == (2, "sqlite", 512 << 20)
    assert program.run(["-r"]) == 0
    assert trees.facts(tree / "data") == before


# The historical one ---------------------------------------------------------------------------


@pytest.fixture
def historical(tmp_path: Path) -> Path:
    """A directory that the historical humfsify has converted (without what it cannot)."""
    needs.root()
    needs.path(HISTORICAL)
    root = tmp_path / "old"
    root.mkdir()
    trees.make(root / "data")
    trees.add_socket(root / "data")
    for name in ("a name with 'quotes' $(and) more\n", os.fsdecode(b"\xff\xfe"), "bigdev"):
        (root / "data" / name).unlink()
    os.removexattr(root / "data/dir/f2", "user.note")
    subprocess.run([HISTORICAL, "nobody", "daemon", "512M"], cwd=root, check=True, capture_output=True)
    return root


EXPECTED = {
    b"dir": (stat.S_IFDIR | 0o755, 0, 0, 0),
    b"emptydir": (stat.S_IFDIR | 0o777, 33, 33, 0),
    b"file": (stat.S_IFREG | 0o644, 0, 0, 0),
    b"sym": (stat.S_IFLNK | 0o777, 5, 6, 0),
    b"chr": (stat.S_IFCHR | 0o600, 0, 0, os.makedev(5, 1)),
    b"blk": (stat.S_IFBLK | 0o644, 0, 0, os.makedev(8, 17)),
    b"fifo": (stat.S_IFIFO | 0, 0, 0, 0),
    b"sock": (stat.S_IFSOCK | 0o755, 0, 0, 0),
    b"metadata": (stat.S_IFREG | 0o644, 0, 0, 0),
}


async def shown(fs: Filesystem) -> dict[bytes, tuple[int, int, int, int]]:
    entries = await Subject(fs).entries(ROOT, plus=True)
    return {
        name: (entry.attr.mode, entry.attr.uid, entry.attr.gid, entry.attr.rdev) for name, entry in entries if entry
    }


async def open_shadow(root: Path) -> Filesystem:
    fs = await kind.open(str(root), OpenOptions())
    assert isinstance(fs, Filesystem)
    return fs


async def test_the_historical_directory_mounts_as_it_is(historical: Path) -> None:
    fs = await open_shadow(historical)
    assert await shown(fs) == EXPECTED
    s = Subject(fs)
    ino = await s.file(ROOT, b"new", b"x", 0o640)
    await s.set(ino, SetAttr(uid=7, gid=8, mode=0o600))
    directory = await s.mkdir(ROOT, b"newdir")
    await fs.rename(ROOT, b"dir", directory, b"moved")
    await s.link(ino, directory, b"linked")
    await fs.unlink(ROOT, b"file")
    await fs.rmdir(ROOT, b"emptydir")
    await fs.rename(ROOT, b"metadata", ROOT, b"blk")
    with pytest.raises(PermissionError):
        await s.set(ino, SetAttr(mode=0o4755))
    device = await s.mknod(directory, b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    before = await shown(fs), await s.attr(ino), device.attr.mode
    await fs.close()
    assert (historical / "file_metadata/new").read_text() == "384 7 8\n"
    assert (historical / "file_metadata/newdir/null").read_text() == "438 1000 1000 c 1 3\n"
    assert (historical / "dir_metadata/newdir/moved/metadata").read_text() == "493 0 0\n"
    assert not (historical / "dir_metadata/emptydir").exists()
    assert (historical / "file_metadata/newdir/linked").stat().st_nlink == 2
    fs = await open_shadow(historical)
    s = Subject(fs)
    after = await s.attr((await s.lookup(ROOT, b"new")).ino)
    assert (after.mode, after.uid, after.gid, after.nlink) == (before[1].mode, 7, 8, 2)
    assert await shown(fs) == before[0]
    await fs.close()


SET_ID = {
    "special_bits_at_creation",
    "chmod_keeps_the_type_and_sets_every_bit",
    "chown_drops_set_id_bits",
    "writing_drops_set_id_bits_when_told",
    "setgid_directories_pass_on_their_group",
}
"""Checks of what the format does not have."""
HELD = [check for check in CHECKS if name_of(check) not in SET_ID]


@pytest.mark.parametrize("check", HELD, ids=name_of)
async def test_contract_of_shadow_fs(check: Check, tmp_path: Path) -> None:
    root = tmp_path / "fs"
    for name in ("data", "file_metadata", "dir_metadata"):
        (root / name).mkdir(parents=True)
    (root / "dir_metadata/metadata").write_text("493 0 0\n")
    (root / "superblock").write_text(f"version 2\nmetadata shadow_fs\nused 1\ntotal {1 << 42}\n")
    fs = await open_shadow(root)
    subject = Subject(fs, Features(xattrs=None))
    await check(subject)
    subject.forget_all()
    await fs.close()


async def test_conversion_both_ways(historical: Path) -> None:
    assert to_sqlite(historical) == []
    assert check(historical) == []
    fs: Filesystem = open_filesystem(historical)
    assert await shown(fs) == EXPECTED
    await fs.close()
    assert not {"dir_metadata", "file_metadata"} & set(names(historical))
    assert to_shadow(historical) == []
    fs = await open_shadow(historical)
    assert await shown(fs) == EXPECTED
    await fs.close()
    assert names(historical) == ["data", "dir_metadata", "file_metadata", "superblock"]


async def test_what_shadow_fs_cannot_hold_is_listed_and_refused(root: Path) -> None:
    fs: Filesystem = open_filesystem(root)
    s = Subject(fs)
    await s.file(ROOT, b"suid", mode=0o4755)
    await s.mkdir(ROOT, b"sticky", 0o1777)
    await s.mknod(ROOT, b"dev", stat.S_IFCHR | 0o600, os.makedev(1, 1000))
    await fs.setxattr(await s.file(ROOT, b"caps"), b"security.capability", b"x")
    await s.file(ROOT, b"plain")
    await fs.close()
    with pytest.raises(UmlError) as refused:
        to_shadow(root)
    assert refused.value.details.splitlines() == [
        "/suid: mode 4755",
        "/sticky: mode 1777",
        "/dev: device 1, 1000",
        "/caps: attribute security.capability",
    ]
    volume = Volume(root)
    assert len(list(losses(volume))) == 4
    volume.close()
    assert len(to_shadow(root, lossy=True)) == 4
    assert superblocks.read(root).metadata == "shadow_fs"
    fs = await open_shadow(root)
    assert (await shown(fs))[b"suid"][0] == stat.S_IFREG | 0o755
    await fs.close()


@pytest.mark.parametrize(
    "text", [b"", b"493", b"493 0", b"493 0 0 c 5", b"x 0 0", b"-1 0 0", b"493 0 0 z 0 0", b"1 2 99999999999"]
)
def test_damaged_records(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text, stat.S_IFREG)


async def test_a_damaged_record_is_named(historical: Path) -> None:
    (historical / "file_metadata/file").write_text("rubbish\n")
    with pytest.raises(UmlError, match="/file: its record is damaged"):
        await open_shadow(historical)
