"""Mounts of the host below the export: storage is shown, what the host's kernel makes up is an empty directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from hostfs import HostFilesystem
from hostfs.kinds import is_memory, is_pseudo
from tests.contract.filesystem import Features, Subject
from tests.contract.subject import failing
from umlfs.filesystem import ROOT

PSEUDO = {
    *("proc", "sysfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "bpf", "pstore", "configfs"),
    *("fusectl", "mqueue", "hugetlbfs", "autofs", "binfmt_misc", "efivarfs", "devtmpfs"),
}
"""By their names in the mount table."""


def mounts() -> dict[PurePosixPath, str]:
    """Every directory mounted on this host that can be seen, and the type of what is on top there."""
    found = {}
    with open("/proc/self/mountinfo") as table:
        for line in table:
            mount, _, source = line.partition(" - ")
            path = PurePosixPath(mount.split()[4].encode().decode("unicode_escape"))
            found[path] = source.split()[0]
    found.pop(PurePosixPath("/"), None)
    return {path: kind for path, kind in found.items() if _is_seen(path)}


def _is_seen(path: PurePosixPath) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode) and os.path.ismount(path)
    except OSError:
        return False


def ways_to(path: PurePosixPath) -> Iterator[bytes]:
    for part in path.parts[1:]:
        yield os.fsencode(part)


def first_pseudo(path: PurePosixPath, kinds: dict[PurePosixPath, str]) -> PurePosixPath | None:
    for step in [*reversed(path.parents), path]:
        if kinds.get(step) in PSEUDO:
            return step
    return None


@pytest.fixture
def host() -> Subject:
    return Subject(HostFilesystem("/", read_only=True), Features())


async def test_every_mount_of_this_host(host: Subject) -> None:
    kinds = mounts()
    assert kinds[PurePosixPath("/proc")] == "proc"
    for path in kinds:
        shown = first_pseudo(path, kinds) or path
        ino = ROOT
        for name in ways_to(shown):
            ino = (await host.lookup(ino, name)).ino
        attr = await host.attr(ino)
        assert stat.S_ISDIR(attr.mode)
        if shown != path or kinds[path] in PSEUDO:
            assert await host.names(ino) == []
            assert attr.mode & 0o222 == 0
            assert attr.nlink == 2
        else:
            assert attr.mode == os.lstat(path).st_mode
    await host.fs.close()


async def test_nothing_of_proc_is_reached(host: Subject) -> None:
    proc = (await host.lookup(ROOT, b"proc")).ino
    listed = dict(await host.entries(ROOT, True))[b"proc"]
    assert listed is not None
    assert listed.ino == proc
    assert listed.attr.mode & 0o222 == 0
    for name in (b"self", b"1", b"kcore", b"sys"):
        assert await host.find(proc, name) is None
    assert [name for name, _ in await host.entries(proc, True, 1)] == []
    with failing(errno.EOPNOTSUPP):
        await host.fs.getxattr(proc, b"user.x")
    assert (await host.fs.statfs(proc)).blocks == (await host.fs.statfs(ROOT)).blocks
    await host.fs.close()


async def test_nothing_is_made_in_what_is_shown_empty() -> None:
    s = Subject(HostFilesystem("/"), Features())
    proc = (await s.lookup(ROOT, b"proc")).ino
    with failing(errno.EROFS):
        await s.file(proc, b"new")
    with failing(errno.EROFS):
        await s.mkdir(proc, b"new")
    with failing(errno.EROFS):
        await s.fs.rename(proc, b"self", proc, b"new")
    with failing(errno.EROFS):
        await s.fs.unlink(proc, b"self")
    await s.fs.close()


async def test_an_export_of_what_the_kernel_makes_up_is_empty() -> None:
    s = Subject(HostFilesystem("/proc"), Features())
    assert await s.names() == []
    assert await s.find(ROOT, b"self") is None
    assert (await s.attr(ROOT)).mode & 0o222 == 0
    with failing(errno.EROFS):
        await s.file(ROOT, b"new")
    await s.fs.close()


async def test_numbers_of_other_devices_are_told_apart(host: Subject) -> None:
    export = os.stat("/")
    numbers = {(export.st_dev, export.st_ino): (await host.attr(ROOT)).ino}
    for path in mounts():
        found = os.stat(path)
        ino = ROOT
        for name in ways_to(path):
            entry = await host.find(ino, name)
            if entry is None:
                break
            ino = entry.ino
        else:
            numbers[found.st_dev, found.st_ino] = (await host.attr(ino)).ino
    assert numbers[export.st_dev, export.st_ino] == export.st_ino
    assert len(set(numbers.values())) == len(numbers)
    await host.fs.close()


@pytest.mark.parametrize(("path", "pseudo"), [("/proc", True), ("/proc/self/status", True), ("/", False)])
def test_kinds_of_filesystems(path: str, pseudo: bool) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        assert is_pseudo(fd) == pseudo
        assert not is_memory(fd) or path == "/"
    finally:
        os.close(fd)
