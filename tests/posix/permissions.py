"""Who may do what: other users and groups, sticky directories, set-id bits."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tests.posix.check import as_user, check, fails, make, make_dir

ME, OTHER, GROUP = 3001, 3002, 4001


@check
def permission_bits_of_a_file(d: Path) -> None:
    """Owner, group and others are told apart, and the owner's bits hold for the owner though others have more."""
    for uid, gid, groups, shift in ((ME, 1, (), 6), (OTHER, GROUP, (), 3), (OTHER, 1, (GROUP,), 3), (OTHER, 1, (), 0)):
        for bits in range(8):
            path = make(d / f"{uid}-{gid}-{len(groups)}-{bits}", b"x", bits << shift, (ME, GROUP))

            def attempt(path: Path = path, bits: int = bits) -> None:
                for flags, needed in ((os.O_RDONLY, 4), (os.O_WRONLY, 2), (os.O_RDWR, 6)):
                    if bits & needed == needed:
                        os.close(os.open(path, flags))
                    else:
                        fails(errno.EACCES, os.open, path, flags)
                for mask in (os.R_OK, os.W_OK, os.X_OK):
                    assert os.access(path, mask) == bool(bits & mask)

            as_user(uid, gid, attempt, groups)


@check
def permission_bits_of_a_directory(d: Path) -> None:
    for bits in range(8):
        directory = make_dir(d / str(bits), 0o700, (ME, GROUP))
        make(directory / "file", b"x", 0o666)
        directory.chmod(bits)

        def attempt(directory: Path = directory, bits: int = bits) -> None:
            if bits & 4:
                assert os.listdir(directory) == ["file"]
            else:
                fails(errno.EACCES, os.listdir, directory)
            if bits & 1:
                assert (directory / "file").read_bytes() == b"x"
            else:
                fails(errno.EACCES, os.stat, directory / "file")
            if bits & 3 == 3:
                (directory / "new").touch()
                (directory / "new").unlink()
            else:
                for call in (os.mkdir, os.mkfifo, os.unlink):
                    fails(errno.EACCES, call, directory / ("file" if call is os.unlink else "new"))
                fails(errno.EACCES, os.rename, directory / "file", directory / "new")

        as_user(OTHER, 1, attempt)


@check
def root_may(d: Path) -> None:
    path = make(d / "file", b"x", 0, (ME, GROUP))
    directory = make_dir(d / "directory", 0, (ME, GROUP))
    assert path.read_bytes() == b"x"
    (directory / "new").touch()
    assert not os.access(path, os.X_OK)


@check
def sticky_directories(d: Path) -> None:
    sticky = make_dir(d / "sticky", 0o1777)
    for name, owner in (("mine", ME), ("theirs", OTHER)):
        make(sticky / name, b"", 0o666, (owner, owner))
    make_dir(sticky / "their-directory", 0o777, (OTHER, OTHER))

    def attempt() -> None:
        fails(errno.EPERM, os.unlink, sticky / "theirs")
        fails(errno.EPERM, os.rename, sticky / "theirs", sticky / "x")
        fails(errno.EPERM, os.rename, sticky / "mine", sticky / "theirs")
        fails(errno.EPERM, os.rmdir, sticky / "their-directory")
        os.rename(sticky / "mine", sticky / "still-mine")
        os.unlink(sticky / "still-mine")

    as_user(ME, ME, attempt)
    os.chown(sticky, ME, ME)
    as_user(ME, ME, lambda: os.unlink(sticky / "theirs"))


@check
def setgid_directories(d: Path) -> None:
    directory = make_dir(d / "shared", 0o2777, (0, GROUP))

    def attempt() -> None:
        os.umask(0o022)
        (directory / "file").touch()
        os.mkdir(directory / "below")
        os.symlink("x", directory / "link")
        os.mkfifo(directory / "fifo")
        for name in ("file", "below", "link", "fifo"):
            found = os.lstat(directory / name)
            assert (found.st_uid, found.st_gid) == (ME, GROUP), name
        assert os.stat(directory / "below").st_mode & 0o7777 == 0o2755
        assert os.stat(directory / "file").st_mode & 0o7777 == 0o644

    as_user(ME, ME, attempt)


@check
def new_files_belong_to_their_maker(d: Path) -> None:
    def attempt() -> None:
        os.umask(0)
        (d / "file").touch()
        os.mkdir(d / "directory")
        os.symlink("x", d / "link")
        for name in ("file", "directory", "link"):
            found = os.lstat(d / name)
            assert (found.st_uid, found.st_gid) == (ME, GROUP), name
        assert os.stat(d / "file").st_mode & 0o777 == 0o666

    as_user(ME, GROUP, attempt)


@check
def who_may_change_owners_and_modes(d: Path) -> None:
    mine = make(d / "mine", b"", 0o644, (ME, ME))
    theirs = make(d / "theirs", b"", 0o666, (OTHER, OTHER))

    def attempt() -> None:
        mine.chmod(0o600)
        fails(errno.EPERM, theirs.chmod, 0o600)
        fails(errno.EPERM, os.chown, mine, OTHER, -1)
        fails(errno.EPERM, os.chown, mine, -1, OTHER)
        fails(errno.EPERM, os.chown, theirs, ME, -1)
        os.chown(mine, -1, GROUP)
        os.chown(mine, ME, -1)
        fails(errno.EPERM, os.utime, theirs, (1, 1))
        os.utime(theirs)
        os.utime(mine, (1, 1))

    as_user(ME, ME, attempt, [GROUP])
    assert os.stat(mine).st_gid == GROUP


@check
def set_id_bits_go(d: Path) -> None:
    """By a change of the owner, and by a write or a truncation of somebody without privileges."""
    path = make(d / "file", b"x" * 10, 0o755)
    path.chmod(0o6755)
    os.chown(path, ME, GROUP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    for change in (lambda: path.write_bytes(b"new"), lambda: os.truncate(path, 1), lambda: append(path)):
        path.chmod(0o6777)
        as_user(OTHER, OTHER, change)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
    path.chmod(0o6755)
    as_user(ME, GROUP, lambda: os.chown(path, ME, GROUP))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def append(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    os.close(fd)


@check
def setgid_without_the_group(d: Path) -> None:
    path = make(d / "file", b"", 0o755, (ME, GROUP))
    as_user(ME, ME, lambda: path.chmod(0o2755))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    as_user(ME, ME, lambda: path.chmod(0o2755), [GROUP])
    assert stat.S_IMODE(path.stat().st_mode) == 0o2755


@check
def executing(d: Path) -> None:
    script = make(d / "script", b"#!/bin/sh\nexit 7\n", 0o755)
    assert os.waitstatus_to_exitcode(os.system(str(script))) == 7
    script.chmod(0o644)
    fails(errno.EACCES, os.execv, str(script), ["script"])
