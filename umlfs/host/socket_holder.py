"""Who has a socket that somebody else wants, in words: for an error, since every process is looked at."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from umlfs.host.holder import described


def holder_of_unix(path: str | Path) -> str:
    """Who has bound the socket at `path`; "another process" where that does not show, as of another user's."""
    return _described(_of_unix(path))


def holder_of_port(port: int, protocol: str = "tcp") -> str:
    """Who has that port (`tcp` or `udp`) of whatever address; "another process" where that does not show."""
    return _described(_of_port(port, protocol))


def _described(pids: Iterator[int]) -> str:
    with contextlib.suppress(OSError):
        for pid in pids:
            if pid == os.getpid():
                return f"this process (pid {pid})"
            if who := described(pid):
                return who
    return "another process"


def _of_unix(path: str | Path) -> Iterator[int]:
    import psutil  # for an error only

    there = os.lstat(path)
    for each in psutil.net_connections("unix"):
        bound = str(each.laddr)
        if each.pid and os.path.basename(bound) == os.path.basename(path):
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(f"/proc/{each.pid}/cwd", bound))
                if stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, there):
                    yield each.pid


def _of_port(port: int, protocol: str) -> Iterator[int]:
    import psutil  # for an error only

    for each in psutil.net_connections(protocol):
        waits = protocol == "udp" or each.status == psutil.CONN_LISTEN
        if each.pid and waits and each.laddr.port == port:
            yield each.pid
