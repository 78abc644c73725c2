"""A control group (version 2) of its own for each machine: what all of its processes together may take.

It is made where this process may make one: beside its own group, in one that was delegated to its user, or in the
host's root group. Its limits hold for memory that resource limits cannot count together.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from runtime.jail import limits

MOUNTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
CONTROLLERS: Final = frozenset({"memory", "pids"})
PROCESSES: Final = "cgroup.procs"
MARGIN: Final = 256 << 20
"""Bytes that a machine may take besides its guest's memory: the kernel's own, and what the host's kernel needs for its
processes, which grows with the guest."""
MORE_PROCESSES: Final = 64
"""Helpers, besides a process for each of the guest's."""
REMOVAL_SECONDS: Final = 1.0
"""How long the host's kernel may take to let go of processes that were killed."""
PREFIX: Final = "umlfs-"


class NoGroupError(Exception):
    """None can be made; the message says why."""


class Group(NamedTuple):
    """A group that is there, with its limits."""

    path: Path

    @classmethod
    def make(cls, name: str, memory: int) -> Group:
        """One called `name` for a guest with `memory` bytes. NoGroupError."""
        group = cls(_parent() / name)
        try:
            group.path.mkdir()
        except OSError as error:
            raise _refused(group.path.parent, error) from error
        try:
            for file, value in _limits(memory).items():
                (group.path / file).write_text(str(value))
        except OSError as error:
            group.remove()
            raise _refused(group.path, error) from error
        return group

    def entrance(self) -> int:
        """A descriptor: whoever writes `0` to it is in the group. The caller closes it. OSError."""
        return os.open(self.path / PROCESSES, os.O_WRONLY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove it, when its processes have ended. Blocks until they are gone, at most for `REMOVAL_SECONDS`."""
        end = time.monotonic() + REMOVAL_SECONDS
        while True:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            if not self.path.exists() or time.monotonic() > end:
                return
            time.sleep(0.01)


def _limits(memory: int) -> dict[str, int]:
    """The files of a group, and what goes into them."""
    return {
        "memory.max": memory + memory // 2 + MARGIN,
        "memory.oom.group": 1,
        "pids.max": limits.processes(memory) + MORE_PROCESSES,
    }


def _parent() -> Path:
    """Where groups can be made. NoGroupError."""
    mount, own = _own()
    if own.name.startswith(PREFIX):
        raise NoGroupError("the machine has limits of its own: --memory-max, --cpu-quota")
    if own == mount and not (own / "cgroup.type").exists():
        return _checked(own)
    if own == mount:
        raise NoGroupError("this process sees no group beside its own")
    return _checked(own.parent)


def _checked(parent: Path) -> Path:
    if not os.access(parent, os.W_OK) or not os.access(parent / PROCESSES, os.W_OK):
        raise NoGroupError(f"{parent} is not delegated to this user")
    lacking = CONTROLLERS - set(_words(parent / "cgroup.subtree_control"))
    if lacking:
        raise NoGroupError(f"{parent} does not limit {' and '.join(sorted(lacking))} of its groups")
    return parent


def _own() -> tuple[Path, Path]:
    """Where groups of version 2 are mounted, and that of this process. NoGroupError."""
    lines = _read(Path("/proc/self/cgroup")).splitlines()
    name = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    mount = next((each for each in MOUNTS if (each / "cgroup.controllers").exists()), None)
    if name is None or mount is None:
        raise NoGroupError("this host has no control groups of version 2")
    return mount, mount / name.lstrip("/")


def _words(path: Path) -> list[str]:
    return _read(path).split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _refused(path: Path, error: OSError) -> NoGroupError:
    return NoGroupError(f"{path}: {error.strerror}")
