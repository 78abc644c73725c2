"""Calls that make, find, move and remove names, and every errno of theirs."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
from pathlib import Path

from tests.posix.check import check, fails, make, make_dir

NAME_MAX = 255
PATH_MAX = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


@check
def long_names(d: Path) -> None:
    name = "x" * NAME_MAX
    make(d / name)
    assert os.listdir(d) == [name]
    os.rename(d / name, d / ("y" * NAME_MAX))
    for call in (os.mkdir, os.unlink, os.rmdir, os.stat, os.listdir, os.mkfifo):
        fails(errno.ENAMETOOLONG, call, d / ("x" * (NAME_MAX + 1)))
    fails(errno.ENAMETOOLONG, os.rename, d / ("y" * NAME_MAX), d / ("z" * (NAME_MAX + 1)))
    fails(errno.ENAMETOOLONG, os.link, d / ("y" * NAME_MAX), d / ("z" * (NAME_MAX + 1)))
    fails(errno.ENAMETOOLONG, os.symlink, "x", d / ("z" * (NAME_MAX + 1)))


@check
def names_are_bytes(d: Path) -> None:
    names = [b"\xff\xfe", b"\n", b" ", b"-", b"\\", "ä€".encode(), "a\u0308".encode(), b"*", b".hidden", b"..."]
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(d), name), os.O_CREAT | os.O_WRONLY, 0o644))
    assert sorted(os.listdir(os.fsencode(d))) == sorted(names)


@check
def path_limits(d: Path) -> None:
    deep = str(d) + "/" + "./" * ((PATH_MAX - len(str(d)) - 3) // 2)
    assert os.path.isdir(deep)
    fails(errno.ENAMETOOLONG, os.stat, deep + "x" * 100)
    start = os.open(".", os.O_PATH)
    try:
        os.chdir(d)
        for _ in range(30):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
        make(Path("deep"), b"deep")
        assert Path("deep").read_bytes() == b"deep"
    finally:
        os.fchdir(start)
        os.close(start)


@check
def missing_and_wrong(d: Path) -> None:
    make(d / "file")
    make_dir(d / "directory")
    make(d / "directory" / "below")
    for call in (os.stat, os.unlink, os.rmdir, os.listdir, os.readlink):
        fails(errno.ENOENT, call, d / "missing")
        fails(errno.ENOTDIR, call, d / "file" / "below")
    fails(errno.ENOENT, os.mkdir, d / "missing" / "below")
    fails(errno.EEXIST, os.mkdir, d / "file")
    fails(errno.EEXIST, os.mkdir, d / "directory")
    fails(errno.EEXIST, os.mkfifo, d / "file")
    fails(errno.EEXIST, os.symlink, "x", d / "file")
    fails(errno.EEXIST, os.link, d / "file", d / "directory")
    fails(errno.ENOTDIR, os.rmdir, d / "file")
    fails(errno.EISDIR, os.unlink, d / "directory")
    fails(errno.ENOTEMPTY, os.rmdir, d / "directory")
    fails(errno.EINVAL, os.rmdir, f"{d}/directory/.")
    fails((errno.ENOTEMPTY, errno.EINVAL), os.rmdir, f"{d}/directory/..")
    fails(errno.EPERM, os.link, d / "directory", d / "second")
    fails(errno.EINVAL, os.readlink, d / "file")


@check
def opening(d: Path) -> None:
    make(d / "file", b"content")
    make_dir(d / "directory")
    os.symlink("file", d / "link")
    os.symlink("nowhere", d / "dangling")
    fails(errno.ENOENT, os.open, d / "missing", os.O_RDONLY)
    fails(errno.EEXIST, os.open, d / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.EEXIST, os.open, d / "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.EISDIR, os.open, d / "directory", os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, d / "file", os.O_DIRECTORY)
    fails(errno.ELOOP, os.open, d / "link", os.O_NOFOLLOW)
    fails(errno.ENXIO, os.open, make_fifo(d / "fifo"), os.O_WRONLY | os.O_NONBLOCK)
    os.close(os.open(d / "dangling", os.O_CREAT | os.O_WRONLY, 0o600))
    assert (d / "nowhere").exists()
    os.close(os.open(d / "file", os.O_RDWR | os.O_TRUNC))
    assert (d / "file").stat().st_size == 0


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


@check
def symlinks(d: Path) -> None:
    for target in ("x", "/", "../..", "y" * 4095, "\udcff"):
        os.symlink(target, d / "link")
        assert os.readlink(d / "link") == target
        assert os.lstat(d / "link").st_size == len(os.fsencode(target))
        assert stat.S_IMODE(os.lstat(d / "link").st_mode) == 0o777
        os.unlink(d / "link")
    fails(errno.ENAMETOOLONG, os.symlink, "x" * PATH_MAX, d / "link")
    fails(errno.ENOENT, os.symlink, "", d / "link")
    os.symlink("loop", d / "loop")
    fails(errno.ELOOP, os.stat, d / "loop")


@check
def renaming(d: Path) -> None:
    make(d / "file", b"1")
    make(d / "other", b"2")
    make_dir(d / "empty")
    make_dir(d / "full")
    make(d / "full" / "below")
    fails(errno.ENOENT, os.rename, d / "missing", d / "x")
    fails(errno.EISDIR, os.rename, d / "file", d / "empty")
    fails(errno.ENOTDIR, os.rename, d / "empty", d / "file")
    fails(errno.ENOTEMPTY, os.rename, d / "empty", d / "full")
    fails(errno.EINVAL, os.rename, d / "full", d / "full" / "within")
    fails((errno.EBUSY, errno.EINVAL), os.rename, f"{d}/full/.", d / "x")
    os.rename(d / "full", d / "empty")
    assert os.listdir(d / "empty") == ["below"]
    os.rename(d / "file", d / "other")
    assert (d / "other").read_bytes() == b"1"
    os.link(d / "other", d / "same")
    os.rename(d / "other", d / "same")
    assert (d / "other").exists()
    assert (d / "same").exists()


@check
def renaming_with_flags(d: Path) -> None:
    make(d / "a", b"a")
    make_dir(d / "b")
    make(d / "b" / "below")
    fails(errno.EEXIST, renameat2, d / "a", d / "b", 1)
    renameat2(d / "a", d / "c", 1)
    renameat2(d / "c", d / "b", 2)
    assert (d / "b").read_bytes() == b"a"
    assert os.listdir(d / "c") == ["below"]
    fails(errno.ENOENT, renameat2, d / "b", d / "missing", 2)
    fails(errno.EINVAL, renameat2, d / "b", d / "c", 1 | 2)


@check
def hard_links(d: Path) -> None:
    make(d / "one", b"x")
    os.link(d / "one", d / "two")
    make_dir(d / "directory")
    os.link(d / "one", d / "directory" / "three")
    found = [os.stat(path) for path in (d / "one", d / "two", d / "directory" / "three")]
    assert {(one.st_dev, one.st_ino, one.st_nlink) for one in found} == {(found[0].st_dev, found[0].st_ino, 3)}
    (d / "two").write_bytes(b"changed")
    assert (d / "directory" / "three").read_bytes() == b"changed"
    os.unlink(d / "one")
    assert os.stat(d / "two").st_nlink == 2
    os.symlink("two", d / "link")
    os.link(d / "link", d / "second-link", follow_symlinks=False)
    assert os.readlink(d / "second-link") == "two"


@check
def link_counts_of_directories(d: Path) -> None:
    before = os.stat(d).st_nlink
    for name in ("a", "b"):
        make_dir(d / name)
    grown = os.stat(d).st_nlink
    assert grown in (before + 2, 1)
    assert os.stat(d / "a").st_nlink in (2, 1)
    os.rename(d / "a", d / "b" / "a")
    assert os.stat(d).st_nlink in (before + 1, 1)
    os.rmdir(d / "b" / "a")
    os.rmdir(d / "b")
    assert os.stat(d).st_nlink == before


@check
def special_files(d: Path) -> None:
    os.mkfifo(d / "fifo", 0o640)
    os.mknod(d / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(d / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000))
    with socket.socket(socket.AF_UNIX) as one:
        start = os.open(".", os.O_PATH)
        os.chdir(d)
        one.bind("socket")
        os.fchdir(start)
        os.close(start)
        kinds = {name: stat.S_IFMT(os.lstat(d / name).st_mode) for name in os.listdir(d)}
    assert kinds == {"fifo": stat.S_IFIFO, "null": stat.S_IFCHR, "disk": stat.S_IFBLK, "socket": stat.S_IFSOCK}
    assert os.stat(d / "null").st_rdev == os.makedev(1, 3)
    assert os.stat(d / "disk").st_rdev == os.makedev(259, 1_000_000)
    reader = os.open(d / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(d / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)


@check
def working_in_a_removed_directory(d: Path) -> None:
    make_dir(d / "gone")
    fd = os.open(d / "gone", os.O_RDONLY)
    os.rmdir(d / "gone")
    assert os.fstat(fd).st_nlink == 0
    assert os.listdir(fd) == []
    fails(errno.ENOENT, os.mkdir, "below", dir_fd=fd)
    os.close(fd)
    fails(errno.ENOENT, os.stat, d / "gone")
