"""Trees on the host to convert, and what a tree looks like, for comparison."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

Fact = tuple[int, int, int, int, int, int, bytes, tuple[tuple[str, bytes], ...]]


def make(data: Path) -> None:
    """One of everything, as root."""
    data.mkdir()
    (data / "dir").mkdir(mode=0o755)
    (data / "emptydir").mkdir()
    os.chmod(data / "emptydir", 0o1777)
    os.chown(data / "emptydir", 33, 33)
    (data / "file").write_bytes(b"contents")
    os.link(data / "file", data / "dir/hard")
    (data / "dir/f2").write_bytes(b"#!/bin/sh\n")
    os.chown(data / "dir/f2", 1000, 1001)
    os.chmod(data / "dir/f2", 0o4755)
    os.setxattr(data / "dir/f2", "user.note", b"\x00binary\xff")
    os.symlink("dir/f2", data / "sym")
    os.chown(data / "sym", 5, 6, follow_symlinks=False)
    os.mknod(data / "chr", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(data / "blk", stat.S_IFBLK | 0o644, os.makedev(8, 17))
    os.mknod(data / "bigdev", stat.S_IFCHR | 0o644, os.makedev(300, 70_000))
    os.mkfifo(data / "fifo", 0o600)
    os.chmod(data / "fifo", 0)
    (data / "a name with 'quotes' $(and) more\n").write_bytes(b"x")
    (data / os.fsdecode(b"\xff\xfe")).write_bytes(b"not text")
    (data / "metadata").write_bytes(b"a file of that name")
    os.utime(data / "file", ns=(1_000_000_001, 1_500_000_000_123_456_789))
    os.utime(data / "dir", ns=(5, 1_400_000_000_000_000_007))


def add_socket(data: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(data)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
    os.chmod(data / "sock", 0o755)


def add_linked_device(data: Path) -> None:
    """What tar does not keep."""
    os.link(data / "chr", data / "dir/chr2")


def facts(data: Path, *, times: bool = True) -> dict[str, Fact]:
    """All that matters of a tree, by path; contents only of plain files."""
    found: dict[str, Fact] = {}
    for path in (data, *sorted(data.rglob("*"))):
        at = path.lstat()
        kind = stat.S_IFMT(at.st_mode)
        contents = b""
        if kind == stat.S_IFREG:
            contents = path.read_bytes()
        elif kind == stat.S_IFLNK:
            contents = os.fsencode(os.readlink(path))
        xattrs = () if kind == stat.S_IFLNK else tuple((name, os.getxattr(path, name)) for name in os.listxattr(path))
        links = 0 if kind == stat.S_IFDIR else at.st_nlink
        rdev = at.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        mtime = at.st_mtime_ns if times and kind != stat.S_IFLNK else 0
        found[str(path.relative_to(data))] = (at.st_mode, at.st_uid, at.st_gid, rdev, links, mtime, contents, xattrs)
    return found
