"""Processes, by psutil, and systemd's units where there are any."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final

import psutil

from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.node import Action, Child, Directory, File, Node, Text
from umlfs.host.syscalls import failure

_NICE_MAX: Final = 19


def asked(call: Callable[[], Any]) -> Any:
    """What psutil tells; ENOENT of a process that is gone, EACCES of one that may not be looked at."""
    try:
        return call()
    except psutil.NoSuchProcess:
        raise failure(errno.ENOENT) from None
    except psutil.AccessDenied:
        raise failure(errno.EACCES) from None


class Root(Directory):
    """Processes by their numbers, and `units`."""

    def __init__(self, writable: bool) -> None:
        self._writable = writable

    def children(self) -> list[Child]:
        found: list[Child] = [(str(pid), ProcessDirectory(pid, self._writable)) for pid in psutil.pids()]
        return [*found, ("units", Units())] if shutil.which("systemctl") else found

    def lookup(self, name: str) -> Node:
        if name == "units" and shutil.which("systemctl"):
            return Units()
        if (
            not name.isascii()
            or not name.isdecimal()
            or len(name) > 9
            or str(int(name)) != name
            or not psutil.pid_exists(int(name))
        ):
            raise failure(errno.ENOENT)
        return ProcessDirectory(int(name), self._writable)


_TEXTS: Final[dict[str, Callable[[psutil.Process], Any]]] = {
    "name": lambda one: one.name(),
    "cmdline": lambda one: "\n".join(one.cmdline()),
    "exe": lambda one: one.exe(),
    "cwd": lambda one: one.cwd(),
    "status": lambda one: one.status(),
    "user": lambda one: one.username(),
    "parent": lambda one: one.ppid(),
    "threads": lambda one: one.num_threads(),
    "memory": lambda one: one.memory_info().rss,
    "cpu": lambda one: sum(one.cpu_times()[:2]),
    "started": lambda one: one.create_time(),
}
"""A file each. Environments are not shown: they hold secrets."""


class ProcessDirectory(Directory):
    """One process, from when it was found: another that has its number later is not it."""

    def __init__(self, pid: int, writable: bool) -> None:
        self._pid, self._writable = pid, writable

    @property
    def key(self) -> Hashable:
        return "process", self._pid

    def children(self) -> list[Child]:
        process = asked(lambda: psutil.Process(self._pid))
        found: list[Child] = [(name, Fact(process, name)) for name in _TEXTS]
        return [*found, ("nice", Nice(process, self._writable)), ("signal", Signal(process))]


class Fact(File):
    """Something that is known of a process."""

    size = -1

    def __init__(self, process: psutil.Process, name: str) -> None:
        self._process, self._name = process, name

    @property
    def key(self) -> Hashable:
        return "fact", self._process, self._name

    def read(self) -> str:
        return f"{asked(lambda: _TEXTS[self._name](self._process))}\n"


def check_own(process: psutil.Process) -> None:
    """EPERM of another user's process: not even root signals those here. And of ourselves."""
    if asked(process.uids).real != os.getuid() or process.pid in (os.getpid(), 1):
        raise failure(errno.EPERM)


class Nice(File):
    """The niceness; a number written is the new one."""

    def __init__(self, process: psutil.Process, writable: bool) -> None:
        self._process = process
        self.mode = 0o644 if writable else 0o444

    @property
    def key(self) -> Hashable:
        return "nice", self._process

    def read(self) -> str:
        return f"{asked(self._process.nice)}\n"

    def write(self, data: bytes) -> None:
        check_own(self._process)
        try:
            value = int(data)
        except ValueError:
            raise failure(errno.EINVAL) from None
        if not -20 <= value <= _NICE_MAX:
            raise failure(errno.EINVAL)
        asked(lambda: self._process.nice(value))


class Signal(Action):
    """`echo TERM >signal`."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    @property
    def key(self) -> Hashable:
        return "signal", self._process

    def act(self, data: bytes) -> None:
        """EINVAL for what is the name of no signal."""
        word = data.decode(errors="replace").strip().upper().removeprefix("SIG")
        number = getattr(signal, f"SIG{word}", None) if word.isalnum() else None
        if not isinstance(number, signal.Signals):
            raise failure(errno.EINVAL)
        check_own(self._process)
        asked(lambda: self._process.send_signal(number))


# Units ----------------------------------------------------------------------------------------


def _systemctl(*words: str) -> str:
    line = ["systemctl", "--no-pager", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=False, process_group=0)
    if done.returncode:
        raise failure(errno.EIO)
    return done.stdout


class Units(Directory):
    """systemd's units, a file each."""

    @property
    def key(self) -> Hashable:
        return "units"

    def children(self) -> Iterator[Child]:
        for line in _systemctl("list-units", "--all", "--plain", "--no-legend").splitlines():
            name = line.split()[0]
            yield quoted(name), Unit(name)

    def lookup(self, name: str) -> Node:
        text = unquoted(name)
        if text.startswith("-") or "LoadState=loaded" not in (shown := _systemctl("show", "--", text)).splitlines():
            raise failure(errno.ENOENT)
        return Text(shown, ("unit", text, shown))


class Unit(File):
    """What systemd tells of a unit."""

    size = -1

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def key(self) -> Hashable:
        return "unit", self._name

    def read(self) -> str:
        return _systemctl("show", "--", self._name)
