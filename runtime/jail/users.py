"""The user that a kernel process of root becomes: one that owns nothing, and that no other machine is."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

FIRST: Final = 0x7A000000
"""From here on numbers belong to nobody: behind those of systemd's containers, before 2^31."""
COUNT: Final = 0x01000000
_CAP_CHOWN, _CAP_SETGID, _CAP_SETUID, _CAP_SYS_CHROOT, _CAP_SYS_ADMIN = 0, 6, 7, 18, 21
FALLBACK: Final = 65534
"""Where the caller's own user namespace has few numbers."""


class User(NamedTuple):
    """Numbers of a user and a group."""

    uid: int
    gid: int

    @classmethod
    def caller(cls) -> User:
        """Who calls."""
        return cls(os.geteuid(), os.getegid())


def unused() -> User | None:
    """One that nobody has; None if this user namespace has no such."""
    number = FIRST + random.randrange(COUNT)
    for each in (number, FALLBACK):
        if _is_mapped(each, "uid") and _is_mapped(each, "gid"):
            return User(each, each)
    return None


def _is_mapped(number: int, which: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/self/{which}_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= number < first + count:
                return True
        return False
    return True


def shows_files() -> bool:
    """Whether root has the capability to give a process another root, which shows files whatever the directories above
    them allow. See also `roots.py`."""
    return _has(_CAP_SYS_ADMIN)


def may_change_roots() -> bool:
    """Whether this process has the capability that giving a process another root takes besides, in a chroot."""
    return _has(_CAP_SYS_CHROOT)


def may_become_another() -> bool:
    """Whether this process may become another user, and give files away."""
    return _has(_CAP_CHOWN) and _has(_CAP_SETGID) and _has(_CAP_SETUID)


def _has(capability: int) -> bool:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        effective = next(line for line in lines if line.startswith("CapEff:"))
        return bool(int(effective.split()[1], 16) >> capability & 1)
    return False


def kept_from(paths: Iterable[Path], bits: int, shown: Callable[[], bool]) -> Path | None:
    """The first of `paths` that others than its owner may not use so (`bits` of a mode: 4 read, 2 write, 1 execute), by
    its own mode or, unless the kernel is `shown` it in a root of its own, by those of the directories above it."""
    for path in paths:
        if not _allows(path, bits):
            return path
        shut = next((each for each in path.parents if not _allows(each, 1)), None)
        if shut is not None and not shown():
            return shut
    return None


def _allows(path: Path, bits: int) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return True  # what is not there is somebody else's to say
    wanted = bits | (1 if stat.S_ISDIR(mode) else 0)
    return mode & wanted == wanted
