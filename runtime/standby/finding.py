"""Where standbys are found, and whose they are. To be imported by every command: it imports next to nothing."""

from __future__ import annotations

import os
import stat
import sys

COMMANDS = frozenset({"cat", "cp", "df", "diff", "find", "ls", "stat", "tree"})
"""Those that a standby does: the others take longer anyway, or are about more than what is in images."""


def directory() -> str:
    """Where this user's kept appliances and standbys have their sockets: `umlfs-kept` in $XDG_RUNTIME_DIR, else
    `/tmp/umlfs-kept-UID`. Not made."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(base, "umlfs-kept") if base.startswith("/") else f"/tmp/umlfs-kept-{os.getuid()}"


def is_ours(path: str) -> bool:
    """Whether it is a directory that only this user writes."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def suffix() -> str:
    """How the sockets of standbys end that this very version may use."""
    found = os.stat(__file__)
    return f".{found.st_ino ^ found.st_mtime_ns:x}"


def warm_suffix() -> str:
    """How the sockets of guests end that stand for the next `uml run` of this very version."""
    return suffix() + "w"


def identity() -> str:
    """Which program, run by which interpreter, this is."""
    return "\n".join((__file__, sys.executable, sys.version))
