"""What a host user cannot give a file, and humfs can: owners, set-id bits, devices, attributes, access lists."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from humfs import acl
from humfs.filesystem import open_filesystem
from humfs.volume import create
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from umlfs.filesystem import ACL_KILL_SGID, ROOT, Caller, SetAttr

ALICE = Caller(1000, 100, 1)
NAMED = 4242


def host_modes(root: Path) -> set[int]:
    """Permission bits of all that is under data/ but symlinks."""
    return {stat.S_IMODE(path.lstat().st_mode) for path in (root / "data").rglob("*") if not path.is_symlink()}


async def test_nothing_of_it_reaches_the_host(subject: Subject, root: Path) -> None:
    fs = subject.fs
    await fs.create(ROOT, b"setuid", 0o4777, os.O_RDWR, 0, ALICE)
    await fs.mkdir(ROOT, b"sticky", 0o1777, 0, ALICE)
    await fs.mknod(ROOT, b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 0, ALICE)
    await fs.mknod(ROOT, b"pipe", stat.S_IFIFO | 0o666, 0, 0, ALICE)
    await fs.setattr((await subject.lookup(ROOT, b"setuid")).ino, SetAttr(mode=0o6755, uid=0))
    assert host_modes(root) == {0o600, 0o700}
    assert (root / "data/null").is_file()
    assert (root / "data/pipe").is_file()
    owners = {path.lstat().st_uid for path in (root / "data").rglob("*")}
    assert owners == {os.geteuid()}


async def test_all_of_it_survives_a_remount(root: Path) -> None:
    fs = open_filesystem(root)
    made = Subject(fs)
    ino = await made.file(ROOT, b"file", b"contents", 0o4750)
    await fs.setattr(ino, SetAttr(uid=7, gid=8, atime_ns=1, mtime_ns=1_500_000_000_123_456_789))
    await fs.setattr(ino, SetAttr(mode=0o4750))
    await fs.setxattr(ino, b"security.capability", b"\x01\x00\x00\x02" + bytes(16))
    await fs.setxattr(ino, b"trusted.overlay", b"y")
    device = (await made.mknod(ROOT, b"disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))).ino
    await made.link(ino, ROOT, b"second")
    before = await made.attr(ino)
    await fs.close()
    fs = open_filesystem(root)
    made = Subject(fs)
    assert (await made.lookup(ROOT, b"second")).ino == ino
    after = await made.attr(ino)
    assert after == before
    assert (after.uid, after.gid, after.nlink, stat.S_IMODE(after.mode)) == (7, 8, 2, 0o4750)
    assert after.mtime_ns == 1_500_000_000_123_456_789
    assert await fs.listxattr(ino) == [b"security.capability", b"trusted.overlay"]
    assert (await made.lookup(ROOT, b"disk")).ino == device
    assert (await made.attr(device)).rdev == os.makedev(259, 70_000)
    assert fs.volume.findings == []
    await fs.close()


async def test_inode_numbers_are_never_used_again(root: Path) -> None:
    numbers = []
    for _ in range(3):
        fs = open_filesystem(root)
        numbers.append(await Subject(fs).file(ROOT, b"file"))
        await fs.unlink(ROOT, b"file")
        await fs.close()
    assert len(set(numbers)) == 3


async def test_writes_drop_file_capabilities(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file", b"x")
    for change in ("write", "truncate", "chown"):
        await subject.fs.setxattr(ino, b"security.capability", b"caps")
        if change == "write":
            await subject.write(ino, b"y")
        elif change == "truncate":
            await subject.set(ino, SetAttr(size=0))
        else:
            await subject.set(ino, SetAttr(uid=5))
        assert await subject.fs.listxattr(ino) == [], change


async def test_chown_of_a_directory_keeps_its_bits(subject: Subject) -> None:
    ino = await subject.mkdir(ROOT, b"directory", 0o2775)
    assert stat.S_IMODE((await subject.set(ino, SetAttr(gid=5))).mode) == 0o2775


async def test_xattr_namespaces(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file")
    link = await subject.symlink(ROOT, b"link", b"x")
    for name in (b"user.a", b"trusted.a", b"security.a"):
        await subject.fs.setxattr(ino, name, b"v")
    with failing(errno.EOPNOTSUPP):
        await subject.fs.setxattr(ino, b"system.other", b"v")
    with failing(errno.EOPNOTSUPP):
        await subject.fs.getxattr(ino, b"other.a")
    with failing(errno.EPERM):
        await subject.fs.setxattr(link, b"user.a", b"v")
    await subject.fs.setxattr(link, b"trusted.a", b"v")
    with failing(errno.E2BIG):
        await subject.fs.setxattr(ino, b"user.big", bytes(65537))
    with failing(errno.ENOSPC):
        for number in range(100):
            await subject.fs.setxattr(ino, b"user.%d" % number, bytes(4000))


# Access control lists -------------------------------------------------------------------------


def access_list(user: int, named: int, group: int, mask: int, other: int) -> acl.Acl:
    return [
        acl.AclEntry(acl.USER_OBJ, user),
        acl.AclEntry(acl.USER, named, NAMED),
        acl.AclEntry(acl.GROUP_OBJ, group),
        acl.AclEntry(acl.MASK, mask),
        acl.AclEntry(acl.OTHER, other),
    ]


FULL = access_list(7, 7, 5, 7, 0)


async def test_a_default_list_is_inherited_and_the_umask_plays_no_part(subject: Subject) -> None:
    directory = await subject.mkdir(ROOT, b"directory", 0o755)
    await subject.fs.setxattr(directory, acl.DEFAULT, acl.encode(FULL))
    entry, _ = await subject.fs.create(directory, b"file", 0o666, os.O_RDWR, 0o077, ALICE)
    assert stat.S_IMODE(entry.attr.mode) == 0o660
    found = acl.decode(await subject.fs.getxattr(entry.ino, acl.ACCESS))
    assert found == access_list(6, 7, 5, 6, 0)
    below = (await subject.fs.mkdir(directory, b"below", 0o777, 0o077, ALICE)).ino
    assert await subject.fs.getxattr(below, acl.DEFAULT) == acl.encode(FULL)
    assert stat.S_IMODE((await subject.attr(below)).mode) == 0o770
    link = (await subject.fs.symlink(directory, b"link", b"x", ALICE)).ino
    assert await subject.fs.listxattr(link) == []


async def test_without_a_list_the_umask_is_applied(subject: Subject) -> None:
    entry, _ = await subject.fs.create(ROOT, b"file", 0o666, os.O_RDWR, 0o027, ALICE)
    assert stat.S_IMODE(entry.attr.mode) == 0o640
    assert stat.S_IMODE((await subject.fs.mkdir(ROOT, b"d", 0o1777, 0o022, ALICE)).attr.mode) == 0o1755


async def test_chmod_and_list_stay_in_step(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file", mode=0o600)
    await subject.fs.setxattr(ino, acl.ACCESS, acl.encode(FULL))
    assert stat.S_IMODE((await subject.attr(ino)).mode) == 0o770
    await subject.set(ino, SetAttr(mode=0o640))
    assert acl.decode(await subject.fs.getxattr(ino, acl.ACCESS)) == access_list(6, 7, 5, 4, 0)


async def test_a_list_that_is_mere_permissions_is_not_kept(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file", mode=0o2600)
    minimal = [acl.AclEntry(acl.USER_OBJ, 6), acl.AclEntry(acl.GROUP_OBJ, 4), acl.AclEntry(acl.OTHER, 4)]
    await subject.fs.setxattr(ino, acl.ACCESS, acl.encode(minimal), ACL_KILL_SGID)
    assert await subject.fs.listxattr(ino) == []
    assert stat.S_IMODE((await subject.attr(ino)).mode) == 0o644


async def test_bad_lists(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file")
    for value in (b"", b"\x02\x00\x00", acl.encode(FULL)[:-1], acl.encode(FULL[:2]), acl.encode(FULL[::-1])):
        with failing(errno.EINVAL):
            await subject.fs.setxattr(ino, acl.ACCESS, value)
    with failing(errno.EACCES):
        await subject.fs.setxattr(ino, acl.DEFAULT, acl.encode(FULL))


async def test_without_lists_nobody_is_kept_asking(tmp_path: Path) -> None:
    create(tmp_path / "fs", 1 << 30)
    fs = open_filesystem(tmp_path / "fs")
    assert not fs.traits.posix_acl
    s = Subject(fs)
    ino = await s.file(ROOT, b"file")
    for name in (acl.ACCESS, acl.DEFAULT, b"security.selinux"):
        with failing(errno.EOPNOTSUPP):
            await fs.getxattr(ino, name)
    with failing(errno.EOPNOTSUPP):
        await fs.setxattr(ino, acl.ACCESS, acl.encode(FULL))
    await fs.setxattr(ino, b"security.selinux", b"label")
    with failing(errno.ENODATA):
        await fs.getxattr(ROOT, b"security.selinux")
    await fs.close()


# Access times ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "moves"), [("relatime", [True, False]), ("noatime", [False] * 2), ("strictatime", [True] * 2)]
)
async def test_access_times(root: Path, policy: str, moves: list[bool]) -> None:
    fs = open_filesystem(root, atime=policy)
    subject = Subject(fs)
    ino = await subject.file(ROOT, b"file", b"x")
    await subject.set(ino, SetAttr(atime_ns=5))
    for moved in moves:
        before = (await subject.attr(ino)).atime_ns
        await subject.read(ino)
        assert ((await subject.attr(ino)).atime_ns != before) == moved
    await fs.close()


async def test_whiteouts(subject: Subject) -> None:
    ino = await subject.file(ROOT, b"file")
    await subject.fs.rename(ROOT, b"file", ROOT, b"moved", 4)
    assert (await subject.lookup(ROOT, b"moved")).ino == ino
    left = (await subject.lookup(ROOT, b"file")).attr
    assert (stat.S_IFMT(left.mode), left.rdev) == (stat.S_IFCHR, 0)
