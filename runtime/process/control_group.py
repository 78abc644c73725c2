"""Control groups (version 2) in which this process, and what it starts, has limits: of its own, or with others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError

CGROUPS: Final = Path("/sys/fs/cgroup")
MOUNTS: Final = (CGROUPS, CGROUPS / "unified")
PREFIX: Final = "umlfs-"
PROCS: Final = "cgroup.procs"
SUBTREE: Final = "cgroup.subtree_control"
ENDING: Final = "umlfs-ending"
"""The group, without limits of its own, of processes that end while others still have groups beside theirs."""

LETTING_GO_SECONDS: Final = 0.4


@contextlib.contextmanager
def joined(name: str, limits: Mapping[str, str], asked: str) -> Iterator[None]:
    """This process is in the control group `umlfs-NAME` with these limits, which is made if it is not there. It leaves
    it in the end, and the last one removes it. UmlError, which names what was `asked` for, where the host has none."""
    parent = _parent(asked)
    group = parent / f"{PREFIX}{name}"
    _check(parent, limits, asked)
    with _alone(parent):
        try:
            group.mkdir(exist_ok=True)
            # A group whose members are to be limited by kind must not have processes itself.
            (group / PROCS).write_text(str(os.getpid()))
            with_controllers(group, limits, asked)
            put(group, limits)
        except OSError as error:
            _leave(parent, group)
            raise refused(asked, f"{error.filename}: {error.strerror}") from error
    try:
        yield
    finally:
        with _alone(parent):
            _leave(parent, group)


def with_controllers(group: Path, limits: Mapping[str, str], asked: str) -> None:
    """Have `group` have the files of `limits`. OSError, UmlError."""
    parent = group.parent
    _check(parent, limits, asked)
    (parent / SUBTREE).write_text(" ".join(f"+{each}" for each in _controllers(limits)))


def _controllers(limits: Mapping[str, str]) -> list[str]:
    return sorted({key.partition(".")[0] for key in limits})


def _check(parent: Path, limits: Mapping[str, str], asked: str) -> None:
    absent = [each for each in _controllers(limits) if each not in _words(parent / "cgroup.controllers")]
    if absent:
        raise refused(asked, f"{parent} has no controller for {' and '.join(absent)}")


def put(group: Path, limits: Mapping[str, str]) -> None:
    """Set limits of a group that is there. OSError."""
    for key, value in limits.items():
        path = group / key
        try:
            path.write_text(value)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def own_group(pid: int | str = "self") -> Path | None:
    """The directory of a process's control group; None where the host has none of version 2."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    root = next((each for each in MOUNTS if (each / "cgroup.controllers").is_file()), None)
    return root / found[0].lstrip("/") if found and root is not None else None


def refused(asked: str, why: str) -> UmlError:
    """The host does not have what was `asked` for."""
    return UmlError(
        f"{asked}: {why}",
        "run it in a group of yours that has them: systemd-run --user --scope -p Delegate=yes uml …",
    )


def _parent(asked: str) -> Path:
    """Where groups are made: what this process is in, or what that is in if it is a group of ours."""
    own = own_group()
    if own is None:
        raise refused(asked, "this host has no control groups of version 2")
    return own.parent if own.name.startswith(PREFIX) else own


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """No other of ours makes or removes groups there meanwhile."""
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # one that the host's kernel cannot lock is none that others share
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _leave(parent: Path, group: Path) -> None:
    """Go out of `group`, and remove it if nobody else is in it. Limits of groups beside it go on. It waits a moment for
    processes that were killed."""
    end = time.monotonic() + LETTING_GO_SECONDS
    while _busy(group, group) and time.monotonic() < end:
        time.sleep(0.02)
    others = [each for each in parent.glob(f"{PREFIX}*") if each.name != ENDING and _busy(each, group)]
    if others:
        outside = parent / ENDING
        with contextlib.suppress(OSError):
            outside.mkdir(exist_ok=True)
    else:
        outside = parent
        without = " ".join(f"-{each}" for each in _words(parent / SUBTREE))
        with contextlib.suppress(OSError):
            (parent / SUBTREE).write_text(without)
    with contextlib.suppress(OSError):
        (outside / PROCS).write_text(str(os.getpid()))
    for each in (group, *([] if others else [parent / ENDING])):
        with contextlib.suppress(OSError):
            each.rmdir()


def _busy(group: Path, own: Path) -> bool:
    """Whether a process besides this one is in it."""
    pids = set(_words(group / PROCS))
    return bool(pids - {str(os.getpid())} if group == own else pids)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENODEV):
            return []
        raise
