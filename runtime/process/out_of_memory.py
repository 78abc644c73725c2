"""Whether this host's kernel has killed processes for want of memory, and at whose limit: its control groups tell."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

MOUNT: Final = Path("/sys/fs/cgroup")
UNIFIED: Final = (MOUNT, MOUNT / "unified")
"""Where groups of version 2 are mounted."""
COUNTS: Final = ("memory.events", "memory.oom_control")
"""Of a group, in version 2 and 1: the file with the count of its processes that were killed so."""
KILLED: Final = "oom_kill"
EXCEEDED: Final = "oom"
"""The count of how often the group's own limit, or one below it, was reached; version 1 has none."""
LIMITS: Final = ("memory.max", "memory.limit_in_bytes")
NO_LIMIT: Final = 1 << 60
"""Version 1 has a number for it."""


@dataclass(frozen=True, slots=True)
class Toll:
    """How many processes of a group had been killed at one moment."""

    group: Path
    count: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """That of the group of the process `pid`, as of now; None where no group counts."""
        for group in _groups(pid):
            count = _count(group, KILLED)
            if count is not None:
                return cls(group, count)
        return None

    def reason(self) -> str:
        """Why processes of the group were killed since then, for a person; empty if none was."""
        if (_count(self.group, KILLED) or 0) <= self.count:
            return ""
        limit = _limit(self.group)
        if limit is None:
            return "this host ran out of memory"
        return f"its control group may take {limit >> 20} MiB of this host's memory, and it wanted more"


def _groups(pid: int) -> list[Path]:
    """Those that may count the memory of the process."""
    found = []
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        number, controllers, name = line.split(":", 2)
        if number == "0":
            found += [mount / name.lstrip("/") for mount in UNIFIED]
        elif "memory" in controllers.split(","):
            found.append(MOUNT / "memory" / name.lstrip("/"))
    return found


def _count(group: Path, what: str) -> int | None:
    for name in COUNTS:
        words = _read(group / name).split()
        with contextlib.suppress(ValueError, IndexError):
            return int(words[words.index(what) + 1])
    return None


def _limit(group: Path) -> int | None:
    """The lowest that was reached, of the group and those above it; None if none was."""
    above = (each for each in (group, *group.parents) if each.is_relative_to(MOUNT))
    found = [_own_limit(each) for each in above if _count(each, EXCEEDED) != 0]
    return min((limit for limit in found if limit is not None), default=None)


def _own_limit(group: Path) -> int | None:
    for name in LIMITS:
        with contextlib.suppress(ValueError):
            limit = int(_read(group / name))  # or `max`
            return limit if limit < NO_LIMIT else None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
