"""What a process has of its caller, read from /proc: what must be the same for another to do its work, and what that
one takes over."""

from __future__ import annotations

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_SAME: Final = frozenset(
    {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}
)
"""Lines of proc(5)'s `status` that say what a process may do."""
_LIMITS: Final = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
_IGNORABLE: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
_VARIABLES: Final = (b"PYTHON", b"LC_", b"LANG")
"""How the names of those begin that an interpreter looks at when it starts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a process is, what it may do, and what names mean to it."""

    status: tuple[tuple[str, str], ...]
    namespaces: tuple[tuple[str, str], ...]
    root: tuple[int, int]
    label: bytes

    @classmethod
    def of(cls, pid: int | str) -> Self:
        """That of a process, or of `self`. OSError if it is gone, or somebody else's."""
        place = Path("/proc", str(pid))
        spaces = place / "ns"
        found = os.stat(place / "root")
        return cls(
            tuple((name, value) for name, value in _status(pid).items() if name in _SAME),
            tuple((name, os.readlink(spaces / name)) for name in sorted(os.listdir(spaces))),
            (found.st_dev, found.st_ino),
            _label(place),
        )


def _status(pid: int | str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _label(place: Path) -> bytes:
    """What a security module calls it; empty without one."""
    try:
        return (place / "attr/current").read_bytes()
    except OSError:
        return b""


def take_over(pid: int) -> None:
    """Have the limits, the priority, the processors and the signals of process `pid`, which has the same standing.

    OSError or ValueError if that may not be.
    """
    for number in _LIMITS:
        wanted = resource.prlimit(pid, number)
        if resource.getrlimit(number) != wanted:
            resource.setrlimit(number, wanted)
    priority = os.getpriority(os.PRIO_PROCESS, pid)
    if os.getpriority(os.PRIO_PROCESS, 0) != priority:
        os.setpriority(os.PRIO_PROCESS, 0, priority)
    os.sched_setaffinity(0, os.sched_getaffinity(pid))
    _take_over_signals(_status(pid))


def _take_over_signals(status: dict[str, str]) -> None:
    ignored, blocked = int(status["SigIgn"], 16), int(status["SigBlk"], 16)
    for number in _IGNORABLE:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if ignored >> number - 1 & 1 else usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, [n for n in signal.valid_signals() if blocked >> n - 1 & 1])


def take_over_environment(environment: dict[bytes, bytes]) -> bool:
    """Have the variables; False, and nothing is changed, if an interpreter that starts with them would be another."""
    if _for_interpreters(environment) != _for_interpreters(dict(os.environb)):
        return False
    for name in os.environb.keys() - environment.keys():
        del os.environb[name]
    os.environb.update(environment)
    time.tzset()
    return True


def _for_interpreters(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in environment.items() if name.startswith(_VARIABLES)}
