"""Locks: within a process, between processes, against plain fcntl locks as the kernel's driver takes them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from umlfs.blocks.raw import LockedFile, open_file
from umlfs.errors import UmlError
from umlfs.host.lock import holder

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b" if sys.argv[2] == "w" else "rb")
fcntl.lockf(file, (fcntl.LOCK_EX if sys.argv[2] == "w" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
TRIER = """
import fcntl, struct, sys
file = open(sys.argv[1], "r+b")
answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, 0, 0, 0, 0))
kind, _, _, _, pid = struct.unpack("@hhqqi0q", answer)
print(pid if kind != fcntl.F_UNLCK else "free")
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    return path


@contextmanager
def held(path: Path, mode: str, program: str = HOLDER) -> Iterator[int]:
    """Another process that has a lock on the file: by default a POSIX lock on all of it."""
    command = [sys.executable, "-c", program, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.send_signal(signal.SIGKILL)


def seen_by_others(path: Path) -> str:
    """Who is in the way of another process that would write: its pid, or 'free'."""
    done = subprocess.run([sys.executable, "-c", TRIER, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def refused(path: Path, *, read_only: bool = False) -> str:
    with pytest.raises(UmlError) as caught:
        open_file(path, read_only=read_only)
    return str(caught.value)


def test_one_writer_in_a_process(image: Path) -> None:
    file = open_file(image)
    assert f"pid {os.getpid()}" in refused(image)
    assert f"pid {os.getpid()}" in refused(image, read_only=True)
    assert seen_by_others(image) == str(os.getpid()), "failed attempts must not cost the lock"
    file.close()
    assert seen_by_others(image) == "free"
    open_file(image).close()


def test_many_readers(image: Path) -> None:
    readers = [open_file(image, read_only=True) for _ in range(3)]
    assert f"pid {os.getpid()}" in refused(image)
    readers.pop().close()
    readers.pop().close()
    assert seen_by_others(image) == str(os.getpid())
    readers.pop().close()
    open_file(image).close()


def test_closing_the_file_elsewhere_does_not_let_others_in(image: Path) -> None:
    file = open_file(image)
    with image.open("rb"):
        pass  # the close drops every POSIX lock of this process on the file
    assert seen_by_others(image) != "free"
    assert holder(file.fileno(), exclusive=True) is None, "we are in nobody's way who has this very descriptor"
    file.close()


SHARER = """
import sys
from umlfs.blocks.raw import open_file
file = open_file(sys.argv[1], shared=True, read_only=sys.argv[2] == "r")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["w", "r"])
def test_processes_share(image: Path, mode: str) -> None:
    """Writers who share a file exclude all who do not; those who only read it, all other writers."""
    with held(image, mode, SHARER) as pid:
        open_file(image, shared=True).close()
        open_file(image, shared=True, read_only=True).close()
        assert f"(pid {pid})" in refused(image)
        assert seen_by_others(image) == str(pid)
        if mode == "w":
            assert "flag c" in refused(image, read_only=True)
        else:
            open_file(image, read_only=True).close()
    with held(image, "w"), pytest.raises(UmlError, match="in use by python"):
        open_file(image, shared=True)


def test_a_shared_lock_outlives_a_close_elsewhere(image: Path) -> None:
    file = open_file(image, shared=True)
    with image.open("rb"):
        pass
    assert seen_by_others(image) != "free"
    open_file(image, lock=False).close()
    assert seen_by_others(image) == str(os.getpid())
    file.close()
    assert seen_by_others(image) == "free"


def test_without_locks(image: Path) -> None:
    file = open_file(image)
    open_file(image, lock=False).close()
    assert seen_by_others(image) == str(os.getpid())
    file.close()


@pytest.mark.parametrize(("mode", "read_only"), [("w", False), ("w", True), ("r", False)])
def test_others_are_named(image: Path, mode: str, read_only: bool) -> None:
    with held(image, mode) as pid:
        assert re.search(rf"in use by python[\d.]* \(pid {pid}\)", refused(image, read_only=read_only))
    open_file(image).close()


def test_readers_of_several_processes(image: Path) -> None:
    with held(image, "r"):
        open_file(image, read_only=True).close()


def test_an_open_file_description_lock_is_traced_to_its_process(image: Path) -> None:
    fd = os.open(image, os.O_RDWR)
    whole = b"\1\0\0\0\0\0\0\0" + bytes(24)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
    assert f"pid {os.getpid()}" in refused(image)
    os.close(fd)


def test_holder_that_died_and_left_helpers(image: Path) -> None:
    """As a killed UML kernel: the lock is its, and lives on in processes that share its descriptors."""
    program = Path(__file__).with_name("lock_survivor.py")
    with subprocess.Popen([sys.executable, str(program), str(image)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        helper = int(process.stdout.readline())
        process.wait()
        message = refused(image)
    assert f"the dead process {process.pid} left behind" in message
    assert f"kill -KILL -- -{process.pid}" in message
    os.kill(helper, signal.SIGKILL)


def test_a_failed_lock_leaves_no_descriptor(image: Path) -> None:
    with held(image, "w"):
        before = len(os.listdir("/proc/self/fd"))
        refused(image)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_locked_file_can_be_closed_twice(image: Path) -> None:
    file: LockedFile = open_file(image)
    file.close()
    file.close()
