"""Locks on a mount: one with those of programs beneath it, and of its own users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from runtime.mounts.table import find
from tests import needs
from tests.guest.caller import eventually
from tests.mounts.server import mounted
from umlfs.mount import libfuse

Sides = tuple[Path, Path]
"""A file as the host has it, and as the mount has it."""
SECONDS: Final = 30.0

HOLDER: Final = """
import fcntl, struct, sys
file = open(sys.argv[1], "r+")
wait = sys.argv[3] == "wait"
if sys.argv[2] == "flock":
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
elif sys.argv[2] == "posix":
    fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 5, 10)
else:
    fcntl.fcntl(file, 38 if wait else 37, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 10, 5, 0))
print("has it", flush=True)
sys.stdin.read()
"""
COUNTER: Final = """
import fcntl, sys
take = fcntl.flock if sys.argv[2] == "flock" else fcntl.lockf
file = open(sys.argv[1], "r+b", buffering=0)
for _ in range(int(sys.argv[3])):
    take(file, fcntl.LOCK_EX)
    file.seek(0)
    number = int(file.read())
    file.seek(0)
    file.write(b"%06d" % (number + 1))
    take(file, fcntl.LOCK_UN)
"""
KINDS: Final = ["flock", "posix", "description"]


@pytest.fixture(scope="module", params=["auto", "never"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    beneath, above = tmp_path_factory.mktemp("beneath"), tmp_path_factory.mktemp("above")
    with mounted(beneath, above, f"cache={request.param}"):
        yield beneath, above


@pytest.fixture
def file(both: Sides, request: pytest.FixtureRequest) -> Sides:
    name = request.node.name.replace("/", "_")
    (both[0] / name).write_text("000000")
    return both[0] / name, both[1] / name


@contextlib.contextmanager
def holder(path: Path, kind: str, wait: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a lock, says so, and ends with the context."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-c", HOLDER, str(path), kind, "wait" if wait else "at once"]
    with subprocess.Popen(words, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def has_it(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "has it\n"


def free(path: Path, kind: str) -> bool:
    with holder(path, kind) as process:
        return has_it(process)


soon = partial(eventually, seconds=SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_has_it_keeps_the_others_out(file: Sides, kind: str) -> None:
    for one, others in ((file[0], [file[1]]), (file[1], file)):
        with holder(one, kind) as process:
            assert has_it(process)
            assert not any(free(path, kind) for path in others)
            process.kill()
        # It was killed: the lock of an open file description ends with that, which the mount hears of a moment later.
        assert soon(lambda: all(free(path, kind) for path in file))


def test_the_hosts_list_of_locks_has_it(file: Sides) -> None:
    with holder(file[1], "posix") as process:
        assert has_it(process)
        words = [needs.program("lslocks"), "-no", "INODE,START,END"]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert [str(file[0].stat().st_ino), "10", "14"] in [line.split() for line in listed.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_waiting(file: Sides, kind: str) -> None:
    with holder(file[0], kind) as first:
        assert has_it(first)
        with holder(file[1], kind, wait=True), holder(file[1], kind, wait=True):
            pass  # the wait of each is ended by a signal
        with holder(file[1], kind, wait=True) as second:
            first.kill()
            assert has_it(second)


@pytest.mark.parametrize("take", [fcntl.flock, fcntl.lockf])
def test_a_wait_is_interrupted_by_a_signal(file: Sides, take: Callable[..., None]) -> None:
    class Rung(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rung

    former = signal.signal(signal.SIGALRM, ring)
    try:
        with file[0].open("r+") as beneath, file[1].open("r+") as above:
            take(beneath, fcntl.LOCK_EX)
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
            with pytest.raises(Rung):
                take(above, fcntl.LOCK_EX)
            signal.setitimer(signal.ITIMER_REAL, 0)
            take(beneath, fcntl.LOCK_UN)
            take(above, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_parts_and_kinds_of_posix_locks(file: Sides) -> None:
    with file[1].open("r+") as above:
        fcntl.lockf(above, fcntl.LOCK_SH, 10, 0)
        fcntl.lockf(above, fcntl.LOCK_EX, 10, 10)
        fcntl.lockf(above, fcntl.LOCK_UN, 5, 10)
        with holder(file[0], "posix") as process:
            assert has_it(process)
            with pytest.raises(BlockingIOError):
                fcntl.lockf(above, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 14)
            fcntl.lockf(above, fcntl.LOCK_SH | fcntl.LOCK_NB, 0, 15)
        above.flush()


@pytest.mark.parametrize("kind", ["flock", "posix"])
def test_what_is_read_under_a_lock_is_what_others_wrote(file: Sides, kind: str, long: bool) -> None:
    """Each of three adds to a number in place: the file keeps its size, and mostly its time."""
    count = 1000 if long else 60
    words = [[sys.executable, "-c", COUNTER, str(path), kind, str(count)] for path in (file[0], file[1], file[1])]
    processes = [subprocess.Popen(each) for each in words]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert int(file[0].read_text()) == 3 * count == int(file[1].read_text())


INSERTS: Final = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=600, isolation_level=None)
for number in range(int(sys.argv[2])):
    base.execute("insert into numbers values (?)", (number,))
"""


def test_one_database(both: Sides, long: bool) -> None:
    count = 500 if long else 20
    with contextlib.closing(sqlite3.connect(both[0] / "database")) as base:
        base.execute("create table numbers (number)")
        paths = [str(both[0] / "database"), *[str(both[1] / "database")] * 2]
        processes = [subprocess.Popen([sys.executable, "-c", INSERTS, path, str(count)]) for path in paths]
        assert [process.wait() for process in processes] == [0, 0, 0]
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert base.execute("select count(*) from numbers").fetchone() == (3 * count,)


WAITER: Final = """
import fcntl, sys
file = open(sys.argv[1])
print("open", flush=True)
try:
    fcntl.flock(file, fcntl.LOCK_EX)
except OSError as error:
    print(repr(error))
"""


def test_whoever_waits_when_the_mount_goes(tmp_path: Path) -> None:
    beneath, above = tmp_path / "beneath", tmp_path / "above"
    beneath.mkdir()
    above.mkdir()
    (beneath / "file").touch()
    with (beneath / "file").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            mounted(beneath, above) as server,
            subprocess.Popen([sys.executable, "-c", WAITER, above / "file"], stdout=subprocess.PIPE) as waiter,
        ):
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == b"open\n"
            os.kill(server, signal.SIGTERM)
            said, _ = waiter.communicate(timeout=SECONDS)
            assert soon(lambda: find(above) is None)
        assert said.startswith(b"OSError")


@pytest.mark.logs_warnings
def test_without_the_trick_locks_are_the_mounts_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from umlfs.mount import pyfuse3_internals

    assert libfuse.CAN_ADD
    with caplog.at_level("WARNING"), monkeypatch.context() as patch:
        patch.setattr(libfuse, "CAN_ADD", False)
        pyfuse3_internals.check()
    assert "locks are not shared" in caplog.text
