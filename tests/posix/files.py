"""Contents: descriptors, mappings, holes, several at once."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from pathlib import Path

from tests.posix.check import as_user, check, fails, make, make_dir

GIB = 1 << 30
PAGE = 4096


@check
def reading_and_writing(d: Path) -> None:
    fd = os.open(d / "file", os.O_RDWR | os.O_CREAT, 0o644)
    assert os.write(fd, b"0123456789") == 10
    assert os.pread(fd, 100, 5) == b"56789"
    assert os.pwrite(fd, b"xyz", 20) == 3
    assert os.pread(fd, 100, 0) == b"0123456789" + bytes(10) + b"xyz"
    assert os.lseek(fd, 0, os.SEEK_END) == 23
    assert os.read(fd, 10) == b""
    fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    os.close(fd)
    fd = os.open(d / "file", os.O_RDONLY)
    fails(errno.EBADF, os.write, fd, b"x")
    fails(errno.EINVAL, os.ftruncate, fd, 0)
    os.close(fd)
    fd = os.open(d, os.O_RDONLY)
    fails(errno.EISDIR, os.read, fd, 10)
    os.close(fd)


@check
def unlinked_while_open(d: Path) -> None:
    fd = os.open(d / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"before")
    os.unlink(d / "file")
    assert os.fstat(fd).st_nlink == 0
    os.write(fd, b" and after")
    assert os.pread(fd, 100, 0) == b"before and after"
    os.fchmod(fd, 0o640)
    os.ftruncate(fd, 6)
    os.fsync(fd)
    assert (os.fstat(fd).st_size, os.fstat(fd).st_mode & 0o777) == (6, 0o640)
    make(d / "file", b"another")
    assert os.pread(fd, 100, 0) == b"before"
    os.close(fd)
    assert (d / "file").read_bytes() == b"another"


@check
def replaced_while_open(d: Path) -> None:
    make(d / "file", b"old")
    with open(d / "file", "rb") as file:
        make(d / "new", b"new")
        os.rename(d / "new", d / "file")
        assert file.read() == b"old"
        assert (d / "file").read_bytes() == b"new"


@check
def mappings(d: Path) -> None:
    path = make(d / "file", b"a" * PAGE + b"b" * 100)
    with (
        open(path, "r+b") as file,
        mmap.mmap(file.fileno(), 0) as shared,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private,
    ):
        assert shared[PAGE : PAGE + 3] == b"bbb"
        private[0:1] = b"p"
        shared[1:2] = b"s"
        shared.flush()
        assert os.pread(file.fileno(), 3, 0) == b"asa"
        os.pwrite(file.fileno(), b"w", 2)
        assert shared[:3] == b"asw"
        assert private[:1] == b"p"
    assert path.read_bytes()[:3] == b"asw"


@check
def direct_reading_and_writing(d: Path) -> None:
    path = make(d / "file", b"x" * (3 * PAGE))
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 2 * PAGE) as buffer:
        assert os.preadv(fd, [buffer], 2 * PAGE) == PAGE
        assert buffer[:PAGE] == b"x" * PAGE
        buffer[:] = b"d" * (2 * PAGE)
        assert os.pwritev(fd, [buffer], PAGE) == 2 * PAGE
    os.close(fd)
    assert path.read_bytes() == b"x" * PAGE + b"d" * (2 * PAGE)


@check
def appends_of_several_writers(d: Path) -> None:
    path = make(d / "log")

    def write(letter: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for index in range(200):
            os.write(fd, letter * 30 + b"%04d\n" % index)
        os.close(fd)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    as_user(0, 0, lambda: write(b"c"))
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(letter * 30 + b"%04d" % n for letter in (b"a", b"b", b"c") for n in range(200))


@check
def a_thousand_parallel_opens(d: Path) -> None:
    fds = [os.open(d / f"{number}", os.O_RDWR | os.O_CREAT, 0o644) for number in range(500)]
    fds += [os.open(d / f"{number}", os.O_RDONLY) for number in range(500)]
    for number, fd in enumerate(fds[:500]):
        os.write(fd, b"%d" % number)
    for number, fd in enumerate(fds[500:]):
        assert os.pread(fd, 10, 0) == b"%d" % number
    for fd in fds:
        os.close(fd)


@check
def files_over_four_gib(d: Path) -> None:
    fd = os.open(d / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b"far", 5 * GIB)
    os.pwrite(fd, b"near", 4 * GIB - 2)
    assert os.fstat(fd).st_size == 5 * GIB + 3
    assert os.fstat(fd).st_blocks * 512 < 1 << 20
    assert os.pread(fd, 10, 5 * GIB - 3) == bytes(3) + b"far"
    assert os.pread(fd, 6, 4 * GIB - 3) == b"\0near\0"
    os.ftruncate(fd, 6 * GIB)
    assert os.pread(fd, 4, 6 * GIB - 4) == bytes(4)
    os.close(fd)


@check
def a_directory_read_while_it_changes(d: Path) -> None:
    """A name that stays comes exactly once."""
    directory = make_dir(d / "many")
    staying = {f"stays-{number}" for number in range(600)}
    for name in sorted(staying):
        (directory / name).touch()
        (directory / f"goes-{name}").touch()
    found: list[str] = []
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            found.append(entry.name)
            if count % 3 == 0:
                (directory / f"comes-{count}").touch()
            if entry.name.startswith("goes-"):
                os.unlink(entry.path)
    assert sorted(name for name in found if name in staying) == sorted(staying)
    assert staying <= set(os.listdir(directory))


@check
def locks_among_processes(d: Path) -> None:
    path = make(d / "file")
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)

        def attempt() -> None:
            with open(path, "r+b") as other:
                fails(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fails((errno.EAGAIN, errno.EACCES), fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB)

        as_user(0, 0, attempt)


@check
def copies_and_synchronisation(d: Path) -> None:
    make(d / "file", b"content" * 10_000)
    with open(d / "file", "rb") as source, open(d / "copy", "wb") as copy:
        left = 70_000
        while left:
            left -= os.copy_file_range(source.fileno(), copy.fileno(), left)
        os.fdatasync(copy.fileno())
    assert (d / "copy").read_bytes() == b"content" * 10_000
    fd = os.open(d, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
