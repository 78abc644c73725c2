"""Noticing that a kernel is about to end, while it still runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import trio

from hostfs.watch import DELETE, Watch
from umlfs.errors import UmlError


@contextlib.contextmanager
def watching(directory: Path) -> Iterator[Watch]:
    """A watch on what is removed from `directory`. UmlError where the host has none left."""
    try:
        watch = Watch()
    except OSError as error:
        raise UmlError(
            f"the machine's directory cannot be watched: {error.strerror}",
            "raise the number in /proc/sys/fs/inotify/max_user_instances",
        ) from error
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        watch.add(fd)
        yield watch
    finally:
        os.close(fd)
        trio.lowlevel.notify_closing(watch.fd)
        watch.close()


async def umid_removed(watch: Watch, name: str) -> None:
    """Return when a kernel with the umid `name` below the watched directory halts, powers off or restarts.

    It removes its umid directory first, and then waits for all requests to its devices to be answered: also those
    that are answered only when something happens.
    """
    while True:
        await trio.lowlevel.wait_readable(watch.fd)
        if any(event.mask & DELETE and event.name == os.fsencode(name) for event in watch.read()):
            return
