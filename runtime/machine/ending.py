"""Noticing that a kernel is about to end, while it still runs."""

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


@contextlib.contextmanager
def watching(directory: Path) -> Iterator[Watch | None]:
    """A watch on what is removed from `directory`; None where the host gives none."""
    try:
        watch = Watch()
    except OSError:
        yield None
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        watch.add(fd)
        yield watch
    finally:
        os.close(fd)
        trio.lowlevel.notify_closing(watch.fd)
        watch.close()


def _exists(path: Path) -> bool:
    return path.exists()


async def umid_removed(watch: Watch | None, directory: Path) -> None:
    """Return when a kernel with its umid directory `directory`, in the one that is watched, ends or starts again.

    It removes that first, and then waits for all requests to its devices to be answered: also those that are
    answered only when something happens.
    """
    if watch is None:
        for expected in (True, False):
            while _exists(directory) is not expected:  # noqa: ASYNC110 - there is nothing that would tell
                await trio.sleep(LOOK_SECONDS)
        return
    while True:
        await trio.lowlevel.wait_readable(watch.fd)
        if any(event.mask & DELETE and event.name == os.fsencode(directory.name) for event in watch.read()):
            return
