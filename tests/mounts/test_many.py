"""Many files at once, and many in one directory."""

from __future__ import annotations

import errno
import os
import resource
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.mounts.server import mounted

OPEN = 1500
"""More than logins allow a process (1,024)."""
ENTRIES = 100_000


def test_more_open_files_than_a_login_allows(tmp_path: Path) -> None:
    source, mountpoint = tmp_path / "source", tmp_path / "mounted"
    source.mkdir()
    mountpoint.mkdir()
    for number in range(OPEN):
        (source / str(number)).write_text(str(number))

    def as_in_a_login() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))

    with mounted(source, mountpoint, preexec_fn=as_in_a_login), ExitStack() as stack:
        files = [stack.enter_context(open(mountpoint / str(number))) for number in range(OPEN)]
        assert [file.read() for file in files] == list(map(str, range(OPEN)))


def test_as_many_as_the_process_may_have(tmp_path: Path) -> None:
    """Of 1,024, all but some that the server needs itself; then an honest error, and what is open goes on."""
    source, mountpoint = tmp_path / "source", tmp_path / "mounted"
    source.mkdir()
    mountpoint.mkdir()
    for number in range(1024):
        (source / str(number)).write_text(str(number))

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    with mounted(source, mountpoint, preexec_fn=few), ExitStack() as stack:
        sum(path.stat().st_size for path in mountpoint.iterdir())
        files = [stack.enter_context(open(mountpoint / str(number))) for number in range(850)]
        refused = set()
        for number in range(850, 1024):
            try:
                files.append(stack.enter_context(open(mountpoint / str(number))))
            except OSError as error:
                refused.add(error.errno)
        assert refused == {errno.ENFILE}
        assert [file.read() for file in files] == list(map(str, range(len(files))))


def test_a_directory_of_100_000_entries_while_it_changes(shared_mount: tuple[Path, Path]) -> None:
    """What is there throughout is listed once, whatever the host and the mount do to the others."""
    host, seen = shared_mount[0] / "many", shared_mount[1] / "many"
    host.mkdir()
    stay = {f"stays-{number:05}-{'x' * 10}" for number in range(ENTRIES)}
    for name in stay:
        os.close(os.open(host / name, os.O_CREAT | os.O_WRONLY))
    ended = threading.Event()
    turns = 0

    def change() -> None:
        nonlocal turns
        while not ended.is_set():
            for directory in (host, seen):
                (directory / f"new-{turns}").touch()
                os.rename(directory / f"new-{turns}", directory / f"renamed-{turns}")
                os.unlink(directory / f"renamed-{turns}")
            turns += 1

    changing = threading.Thread(target=change)
    changing.start()
    try:
        listed = [name for name in os.listdir(seen) if name.startswith("stays-")]
    finally:
        ended.set()
        changing.join()
    assert turns
    assert len(listed) == ENTRIES
    assert set(listed) == stay
    assert (seen / next(iter(stay))).stat().st_size == 0
