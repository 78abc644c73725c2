"""The directory of a machine, `~/.uml/UMID`: as the kernel's own, and what is ours beside that.

    pid             the supervisor's number; it holds a lock (flock) on this file for as long as the machine lives
    mconsole        the management console
    control         commands to the supervisor
    lines           the consoles
    events          what happens to the machine
    log             what the kernel said since the machine was started; kept when it ends, see `ended`
    machine.toml    the machine's description

A directory whose lock nobody holds is stale: the next machine of that name takes it over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError, UsageError, naming

UMID_MAX: Final = 63
"""Characters, as in the kernel."""
PATH_MAX: Final = 107
"""Bytes of a socket's path."""
LONGEST: Final = "/machine.toml"
PID: Final = "pid"
LOG: Final = "log"
DESCRIPTION: Final = "machine.toml"
CONTROL: Final = "control"
MCONSOLE: Final = "mconsole"
LINES: Final = "lines"
EVENTS: Final = "events"

_UMID: Final = re.compile(r"[A-Za-z0-9_+@%][A-Za-z0-9_.+@%-]*\Z", re.ASCII)
_READ_MAX: Final = 32


def machines_directory(named: str | None = None) -> Path:
    """Where the machines of this user are: `named` (`uml_dir=`), else ~/.uml. UmlError for somebody without a home."""
    if named:
        return Path(named).absolute()
    home = os.environ.get("HOME")
    if not home:
        raise UmlError("no HOME: there is no place for the machine's directory", "set HOME, or give uml_dir=DIR")
    return Path(home) / ".uml"


def check_umid(umid: str) -> str:
    """`umid`. UsageError if no machine can have that name."""
    if len(umid) > UMID_MAX or not _UMID.match(umid):
        raise UsageError(
            f"'{umid}' cannot be the name of a machine", f"use up to {UMID_MAX} letters, digits, '-', '_' and '.'"
        )
    return umid


class MachineDirectory:
    """The directory of one machine, which is this process's."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write_pid(self) -> None:
        """Note this process's number: a process that forks notes it anew."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def _close(self) -> None:
        """Remove what is there; then the name is free."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def claimed(parent: Path, umid: str) -> Iterator[MachineDirectory]:
    """Make the directory for the machine `umid`, or take over a stale one; removed in the end.

    UmlError, with its pid, if a machine of that name is running.
    """
    path = parent / umid
    if len(os.fsencode(path)) + len(LONGEST) > PATH_MAX:
        raise UmlError(f"{path}: too long a path for sockets", "choose a shorter umid, or uml_dir=")
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(path)
    except OSError as error:
        raise UmlError(f"{path}: cannot be made: {os.strerror(error.errno or 0)}", "choose another uml_dir=") from error
    directory = MachineDirectory(path, lock)
    try:
        with naming(path):
            directory.write_pid()
        yield directory
    finally:
        directory._close()


def _locked(path: Path) -> int:
    """The lock file of the directory, which is emptied but for that. OSError."""
    while True:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
        if status.st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
            raise UmlError(f"{path}: belongs to somebody else, or is no directory", "choose another umid")
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path / PID, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if _take(fd, path):
                path.chmod(0o700)
                return fd


def _take(fd: int, path: Path) -> bool:
    """Lock the file, and empty the directory. False if its last owner removed it meanwhile."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), os.stat(path / PID)):
            os.close(fd)
            return False
        by_hand = _kernel_of(path)
        if by_hand is not None:
            raise _in_use(path, by_hand)
        for entry in path.iterdir():
            if entry.name != PID:
                _remove(entry)
        return True
    except FileNotFoundError:
        os.close(fd)
        return False
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise _in_use(path, read_pid(path)) from None
        raise


def _in_use(path: Path, pid: int | None) -> UmlError:
    who = f" (pid {pid})" if pid is not None else ""
    return UmlError(
        f"{path.name}: a machine of that name is running{who}",
        f"'uml halt {path.name}' ends it; or choose another",
    )


def _kernel_of(path: Path) -> int | None:
    """The kernel that has this directory without a lock: one that was started by hand."""
    pid = read_pid(path)
    return pid if pid is not None and pid != os.getpid() and is_kernel(pid, path.name) else None


def is_kernel(pid: int, umid: str) -> bool:
    """Whether process `pid` is a UML kernel that was given this umid."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"umid={umid}".encode() in words


def is_locked(path: Path) -> bool:
    """Whether somebody looks after the machine with this directory."""
    try:
        fd = os.open(path / PID, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return False


def runs(path: Path) -> bool:
    """Whether the machine with this directory runs, or a kernel that was started with it by hand."""
    pid = read_pid(path)
    return pid is not None and (is_locked(path) or is_kernel(pid, path.name))


def machine_at(name: str) -> Path | None:
    """The directory of the machine that runs there: `name` is a path, with a slash in it, of that or of a socket in it.
    None if there is no machine, or it is not this user's."""
    if "/" not in name:
        return None
    path = Path(os.path.abspath(name))
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path = path.parent
        if path.stat().st_uid == os.geteuid() and runs(path):
            return path
    return None


def read_pid(path: Path) -> int | None:
    """The number in a machine's directory; None if there is none."""
    with contextlib.suppress(OSError, ValueError), open(path / PID, "rb") as file:
        return int(file.read(_READ_MAX))
    return None


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
