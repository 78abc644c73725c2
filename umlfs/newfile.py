"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@contextmanager
def new_file(path: str, mode: int = 0o644, *, replace: bool = False) -> Iterator[int]:
    """Make a file under a temporary name beside `path`; the block gets its descriptor and fills it.

    When the block ends, the file is durable and appears under `path`, with `replace` in the place of what is
    there (of the target, if that is a symbolic link), else FileExistsError. If the block fails, nothing is left.
    `mode` is subject to the umask. OSError names `path`.
    """
    given = path
    if replace:
        path = os.path.realpath(path)
    elif os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    directory = os.path.dirname(path) or "."
    try:
        fd, temporary = tempfile.mkstemp(prefix=".uml-", dir=directory)
    except OSError as error:
        error.filename = given
        raise
    try:
        os.fchmod(fd, mode & ~_umask())
        yield fd
        os.fsync(fd)
        _appear(temporary, path, replace)
        _sync_directory(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.close(fd)


def _umask() -> int:
    """The umask, without changing it even for a moment: other threads make files too."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _appear(temporary: str, path: str, replace: bool) -> None:
    if replace:
        return os.rename(temporary, path)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(temporary, path)


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a filesystem that cannot, and so keeps names safe in its own way or not
            raise
    finally:
        os.close(fd)


def is_special(path: str) -> bool:
    """Whether something is at `path` that is not a regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
