"""The cache directory: what is costly to find out again, and never needed to be right.

Files lie in `$XDG_CACHE_HOME/umlfs`, else `~/.cache/umlfs`. A cache that cannot be written, or that another
user could have written, is as good as none: reading finds nothing and storing does nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

MODE_DIRECTORY = 0o700
MODE_FILE = 0o600


def directory() -> Path | None:
    """The cache directory, made if need be; None if there is none that only this user can write."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    path = Path(base if base.startswith("/") else os.path.expanduser("~/.cache")) / "umlfs"
    if not path.is_absolute():
        return None
    try:
        path.mkdir(mode=MODE_DIRECTORY, parents=True, exist_ok=True)
        return path if _is_ours(os.lstat(path), stat.S_IFDIR) else None
    except OSError:
        return None


def subdirectory(name: str) -> Path | None:
    """A directory in the cache directory, made if need be; None if there is none. OSError."""
    root = directory()
    if root is None:
        return None
    (root / name).mkdir(mode=MODE_DIRECTORY, exist_ok=True)
    return root / name


def _is_ours(status: os.stat_result, kind: int) -> bool:
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def open_ours(path: Path) -> int | None:
    """A descriptor reading `path`, or None unless it is a regular file that only this user could have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_ours(os.fstat(fd), stat.S_IFREG):
        return fd
    os.close(fd)
    return None


def load(name: str, limit: int = 65536) -> bytes | None:
    """The first `limit` bytes of the file `name`; None if it is not there or not ours."""
    root = directory()
    fd = open_ours(root / name) if root else None
    if fd is None:
        return None
    with open(fd, "rb", buffering=0) as file:
        try:
            return file.read(limit)
        except OSError:
            return None


def store(name: str, content: bytes) -> Path | None:
    """Put `content` under `name`, whole or not at all; the path, or None if it could not be stored.

    Not durable: after a power cut the file may be empty, and its reader finds that it holds nothing of use.
    """
    root = directory()
    if root is None:
        return None
    try:
        return write_atomically(root / name, content)
    except OSError:
        return None


def write_atomically(path: Path, content: bytes) -> Path:
    """Write `content` beside `path`, then rename it there. OSError, with nothing left behind."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE_FILE)
    try:
        with open(fd, "wb", buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
        os.rename(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    return path


def note_use(path: Path) -> None:
    """Let the file count as used now, and be as old as it is: by that others know whether it is the same. OSError."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def prune(pattern: str, keep: int) -> None:
    """Remove the files matching `pattern` but for the `keep` that were used or changed last."""
    root = directory()
    if root is None:
        return
    found: list[tuple[int, Path]] = []
    for path in root.glob(pattern):
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            found.append((max(status.st_atime_ns, status.st_mtime_ns), path))
    for _, path in sorted(found, reverse=True)[keep:]:
        with contextlib.suppress(OSError):
            os.unlink(path)
