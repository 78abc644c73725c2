"""Which directories the host has in its caches, so that the loop need not wait for its disk."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import trio

from humfs.host import Host
from umlfs.host.syscalls import How, open_cached

CACHED_MAX: Final = 4096
"""How many directories are remembered as being in the host's caches."""
_PATH: Final = How(os.O_PATH | os.O_NOFOLLOW)


class HostCaches:
    """The directories of one volume that were seen already."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: dict[int, None] = {}

    def __contains__(self, directory: int) -> bool:
        return directory in self._seen

    def add(self, directory: int) -> None:
        """It was made just now."""
        self._seen[directory] = None

    def drop(self, directory: int) -> None:
        """It is gone."""
        self._seen.pop(directory, None)

    async def fill(self, directory: int, name: bytes) -> None:
        """Have a directory that is seen for the first time in the host's caches, without the loop waiting. `name` is
        one in it."""
        if len(self._seen) >= CACHED_MAX:
            self._seen.clear()
        self._seen[directory] = None
        fd = self._host.directories.get(directory)
        try:
            os.close(open_cached(fd, name, _PATH))
        except BlockingIOError:
            await trio.to_thread.run_sync(_read_ahead, os.dup(fd))
        except OSError:
            return  # the operation will meet it again


def _read_ahead(fd: int) -> None:
    """Have the host read the directory behind `fd` and the attributes of all that is in it; closes `fd`."""
    try:
        own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            with os.scandir(own) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        entry.stat(follow_symlinks=False)
        finally:
            os.close(own)
    except OSError:
        return
    finally:
        os.close(fd)
