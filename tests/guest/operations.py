"""What real programs do with files, done on the directory that is named: runs inside a guest, on a mount.

Nothing is imported but the standard library. Each function is one claim; the names of those that fail are printed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sqlite3
import stat
import sys
import threading
import traceback
from collections.abc import Callable

PAGE = 4096
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fails(number: int, function: Callable[..., object], *arguments: object) -> None:
    found = 0
    try:
        function(*arguments)
    except OSError as error:
        found = error.errno or 0
    assert found == number, f"{found}, not {errno.errorcode[number]}"


def write(name: str, data: bytes = b"") -> None:
    with open(name, "wb") as file:
        file.write(data)


def read(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def rename2(old: str, new: str, flags: int) -> None:
    call(libc.renameat2(-100, old.encode(), -100, new.encode(), flags))


def shared_mapping_writes_through() -> None:
    write("file", bytes(4 * PAGE))
    with open("file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[PAGE : PAGE + 5] = b"hello"
        mapping.flush()
        assert os.pread(file.fileno(), 5, PAGE) == b"hello"
        os.pwrite(file.fileno(), b"J", PAGE)
        assert mapping[PAGE : PAGE + 5] == b"Jello"
    assert read("file")[PAGE : PAGE + 5] == b"Jello"


def private_mapping_stays_private() -> None:
    write("file", b"a" * PAGE)
    with open("file", "r+b") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapping:
        mapping[0:1] = b"b"
        assert mapping[0:2] == b"ba"
    assert read("file") == b"a" * PAGE


def programs_run_from_here() -> None:
    write("program", b"#!/bin/sh\necho $((6 * 7)) >answer\n")
    os.chmod("program", 0o755)
    assert os.spawnl(os.P_WAIT, "./program", "program") == 0
    assert read("answer") == b"42\n"


def appending_and_truncating() -> None:
    write("file", b"one")
    with open("file", "ab") as first, open("file", "ab") as second:
        for number in range(50):
            for file in (first, second):
                file.write(b"%d," % number)
                file.flush()
    assert read("file") == b"one" + b"".join(b"%d,%d," % (number, number) for number in range(50))
    os.close(os.open("file", os.O_WRONLY | os.O_TRUNC))
    assert os.stat("file").st_size == 0
    os.truncate("file", 10)
    assert read("file") == bytes(10)


def links() -> None:
    write("file", b"x")
    os.link("file", "second")
    assert os.stat("file").st_nlink == 2
    assert os.path.samefile("file", "second")
    os.symlink("second", "link")
    assert read("link") == b"x"
    assert os.readlink("link") == "second"
    os.unlink("file")
    assert read("link") == b"x"
    fails(errno.EEXIST, os.symlink, "x", "link")


def renames() -> None:
    os.mkdir("directory")
    write("directory/inside", b"i")
    write("one", b"1")
    write("two", b"2")
    fails(errno.EEXIST, rename2, "one", "two", NOREPLACE)
    rename2("one", "free", NOREPLACE)
    rename2("free", "directory", EXCHANGE)
    assert read("directory") == b"1"
    assert read("free/inside") == b"i"
    os.rename("directory", "two")
    assert read("two") == b"1"
    fails(errno.ENOTEMPTY, os.rmdir, "free")


def space() -> None:
    write("file", b"x" * (64 * PAGE))
    fd = os.open("file", os.O_RDWR)
    call(libc.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, ctypes.c_long(16 * PAGE), ctypes.c_long(32 * PAGE)))
    os.fsync(fd)
    assert os.pread(fd, 10, 20 * PAGE) == bytes(10)
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 16 * PAGE
    assert os.lseek(fd, 16 * PAGE, os.SEEK_DATA) == 48 * PAGE
    os.posix_fallocate(fd, 0, 100 * PAGE)
    assert os.fstat(fd).st_size == 100 * PAGE
    os.fdatasync(fd)
    os.close(fd)
    with open("sparse", "wb") as file:
        file.truncate(1 << 32)
        file.seek(1 << 31)
        file.write(b"x")
    assert os.stat("sparse").st_blocks * 512 < 1 << 20
    assert os.statvfs(".").f_blocks > 0


def attributes() -> None:
    write("file")
    os.chmod("file", 0o640)
    os.utime("file", ns=(1, 1_234_567_890_123_456_789))
    status = os.stat("file")
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_mtime_ns == 1_234_567_890_123_456_789
    if "user" in sys.argv[2:]:
        os.setxattr("file", "user.name", b"value")
        assert os.getxattr("file", "user.name") == b"value"
        assert os.listxattr("file") == ["user.name"]
        os.removexattr("file", "user.name")
        fails(errno.ENODATA, os.getxattr, "file", "user.name")
    os.mkfifo("fifo")
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)


def locks() -> None:
    write("file", b"x" * 100)
    with open("file", "r+b") as one, open("file", "r+b") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fails(errno.EWOULDBLOCK, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open("file", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
        child = os.fork()
        if child == 0:
            try:
                with open("file", "r+b") as mine:
                    fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
                    fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
            except OSError as error:
                os._exit(7 if error.errno in (errno.EAGAIN, errno.EACCES) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def unlinked_files_live_on() -> None:
    write("file", b"contents")
    with open("file", "r+b") as file:
        os.unlink("file")
        file.seek(0, os.SEEK_END)
        file.write(b"!")
        file.seek(0)
        assert file.read() == b"contents!"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert not os.path.exists("file")


def a_thousand_files_by_many() -> None:
    def work(number: int) -> None:
        os.mkdir(f"d{number}")
        for turn in range(125):
            write(f"d{number}/{turn}", b"%d" % turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [os.path.join(top, name) for top, _, names in os.walk(".") for name in names]
    assert len(found) == 1000
    assert all(read(path) == os.path.basename(path).encode() for path in found)


def databases() -> None:
    for mode in ("delete", "wal"):
        with sqlite3.connect(f"{mode}.db") as database:
            assert database.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode
            database.execute("create table t (x)")
            database.executemany("insert into t values (?)", [(number,) for number in range(1000)])
        assert database.execute("select sum(x) from t").fetchone()[0] == 499_500
        database.close()


OPERATIONS = [
    shared_mapping_writes_through,
    private_mapping_stays_private,
    programs_run_from_here,
    appending_and_truncating,
    links,
    renames,
    space,
    attributes,
    locks,
    unlinked_files_live_on,
    a_thousand_files_by_many,
    databases,
]


def main() -> None:
    for operation in OPERATIONS:
        place = os.path.join(sys.argv[1], operation.__name__)
        os.mkdir(place)
        os.chdir(place)
        try:
            operation()
        except Exception:
            traceback.print_exc()
            print("failed:", operation.__name__)
        else:
            print("holds:", operation.__name__)


if __name__ == "__main__":
    main()
