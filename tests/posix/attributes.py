"""Attributes: times, sizes, extended attributes, the state of the filesystem."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.posix.check import check, fails, make, make_dir

SECOND = 1_000_000_000


def _later(path: Path, *fields: str, change: Callable[[], object]) -> None:
    """`change` makes exactly these times of `path` later."""
    os.utime(path, ns=(SECOND, SECOND))
    before = os.lstat(path)
    time.sleep(0.02)  # more than a tick of the kernel's clock, or nothing may be seen to change
    change()
    after = os.lstat(path)
    changed = {name for name in ("st_mtime_ns", "st_ctime_ns") if getattr(after, name) > getattr(before, name)}
    assert changed == {f"st_{field}_ns" for field in fields}, changed


@check
def what_changes_which_times(d: Path) -> None:
    path, directory = make(d / "file", b"x"), make_dir(d / "directory")
    _later(path, "mtime", "ctime", change=lambda: path.write_bytes(b"new"))
    _later(path, "mtime", "ctime", change=lambda: os.truncate(path, 1))
    _later(path, "ctime", change=lambda: path.chmod(0o600))
    _later(path, "ctime", change=lambda: os.chown(path, 1, 1))
    _later(path, "ctime", change=lambda: os.link(path, d / "second"))
    _later(path, "ctime", change=lambda: os.unlink(d / "second"))
    _later(path, change=lambda: path.read_bytes())
    _later(directory, "mtime", "ctime", change=lambda: (directory / "new").touch())
    _later(directory, "mtime", "ctime", change=lambda: os.rename(directory / "new", directory / "newer"))
    _later(directory, "mtime", "ctime", change=lambda: os.unlink(directory / "newer"))
    _later(directory, "mtime", "ctime", change=lambda: os.mkdir(directory / "below"))
    _later(directory, "mtime", "ctime", change=lambda: os.rmdir(directory / "below"))
    _later(directory, change=lambda: os.listdir(directory))


@check
def times_of_any_age(d: Path) -> None:
    path = make(d / "file")
    os.symlink("x", d / "link")
    for at in (0, 1, SECOND * 1_000_000_000 + 123_456_789, SECOND * (2**32 + 5), -SECOND + 1, -5 * SECOND):
        for name in ("file", "link"):
            os.utime(d / name, ns=(at, at + 7), follow_symlinks=False)
            found = os.lstat(d / name)
            assert (found.st_atime_ns, found.st_mtime_ns) == (at, at + 7)
    assert path.exists()


@check
def sizes_and_blocks(d: Path) -> None:
    path = make(d / "file")
    assert os.stat(path).st_size == 0
    for size in (1, 4096, 100_000):
        path.write_bytes(b"x" * size)
        assert os.stat(path).st_size == size
    fails(errno.EINVAL, os.truncate, path, -1)
    fails(errno.EISDIR, os.truncate, d, 0)
    fails(errno.EFBIG, os.truncate, path, (1 << 63) - 1)
    assert os.stat(path).st_size == 100_000


@check
def extended_attributes(d: Path) -> None:
    path = make(d / "file")
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(d, "user.directory", b"\0\xff" * 100)
    assert sorted(name for name in os.listxattr(path) if name.startswith("user.")) == ["user.empty", "user.one"]
    assert os.getxattr(d, "user.directory") == b"\0\xff" * 100
    fails(errno.EEXIST, os.setxattr, path, "user.one", b"2", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, "user.two", b"2", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, path, "user.two")
    fails(errno.ENODATA, os.removexattr, path, "user.two")
    fails(errno.ERANGE, os.setxattr, path, "user." + "x" * 256, b"")
    fails(errno.EOPNOTSUPP, os.setxattr, path, "nonsense.name", b"")
    os.symlink("file", d / "link")
    fails(errno.EPERM, os.setxattr, d / "link", "user.one", b"", follow_symlinks=False)
    os.removexattr(path, "user.one")
    assert os.getxattr(path, "user.empty") == b""


@check
def the_filesystem(d: Path) -> None:
    found = os.statvfs(d)
    assert found.f_namemax == 255
    assert found.f_blocks >= found.f_bfree >= found.f_bavail > 0
    assert found.f_frsize > 0


@check
def inode_numbers_agree(d: Path) -> None:
    for name in ("a", "b", "c"):
        make(d / name)
    make_dir(d / "directory")
    with os.scandir(d) as entries:
        for entry in entries:
            assert entry.inode() == os.stat(entry.path).st_ino
            assert entry.is_dir() == (entry.name == "directory")
    assert os.stat(d / "directory" / "..").st_ino == os.stat(d).st_ino
