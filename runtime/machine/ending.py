"""Noticing that a kernel is about to end, while it still runs; and that it will not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from umlfs.host.watch import DELETE, Watch

LOOK_SECONDS: Final = 0.2
"""How often to look where the host has no watch left to give: a user has some hundred of them."""
STUCK_SECONDS: Final = 1.0
"""How long a kernel that has said that it ends may do nothing at all before it is taken to be stuck."""
AWAKE: Final = 0.05
"""The share of time that a process runs which is not asleep."""
END_SECONDS: Final = 10.0
"""How long it may take in all."""


@contextlib.contextmanager
def watching() -> Iterator[Watch | None]:
    """A watch for `umid_removed`; None where the host gives none."""
    try:
        watch = Watch()
    except OSError:
        yield None
        return
    try:
        yield watch
    finally:
        watch.close()


def _exists(path: Path) -> bool:
    return path.exists()


async def umid_removed(watch: Watch | None, directory: Path) -> None:
    """Return when a kernel with its umid directory `directory` ends or starts again.

    It removes that first, and then waits for all requests to its devices to be answered: also those that are
    answered only when something happens.
    """
    if watch is None:
        for expected in (True, False):
            while _exists(directory) is not expected:  # noqa: ASYNC110 - there is nothing that would tell
                await trio.sleep(LOOK_SECONDS)
        return
    _add(watch, directory.parent)
    while True:
        await trio.lowlevel.wait_readable(watch.fd)
        if any(event.mask & DELETE and event.name == os.fsencode(directory.name) for event in watch.read()):
            return


async def stuck(pid: int) -> None:
    """Return when the kernel process `pid`, whose guest has shut down, will not end by itself.

    It sleeps, as 7.2 does for good, waiting for devices that it has switched off; or it has had all the time there is.
    """
    with trio.move_on_after(END_SECONDS):
        ran, asleep = _ran(pid), 0.0
        while asleep < STUCK_SECONDS:
            await trio.sleep(LOOK_SECONDS)
            before, ran = ran, _ran(pid)
            idle = ran - before < AWAKE * LOOK_SECONDS and not _runs(pid)
            asleep = asleep + LOOK_SECONDS if idle else 0.0


def _ran(pid: int) -> float:
    """For how many seconds a process has run, or has waited to; 0 once it is gone."""
    try:
        ran, waited, _ = map(int, Path(f"/proc/{pid}/schedstat").read_bytes().split())
    except (OSError, ValueError):
        return 0.0
    return (ran + waited) / 1e9


def _runs(pid: int) -> bool:
    """Whether a process has a processor, or waits for one."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False


def _add(watch: Watch, directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        watch.add(fd)
    finally:
        os.close(fd)
