"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from umlfs.errors import naming

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NAMED_ONLY = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
"""What O_TMPFILE fails with on a filesystem (or a kernel) without it; the directory itself may be missing too."""


@contextmanager
def new_file(path: str, mode: int = 0o644, *, replace: bool = False) -> Iterator[int]:
    """Make a file without a name in the directory of `path`; the block gets its descriptor and fills it.

    When the block ends, the file is durable and appears under `path`, with `replace` in the place of what is
    there (of the target, if that is a symbolic link), else FileExistsError. If the block fails, nothing is left; nor
    if the process is killed, but on filesystems that know only files with names (there it is `.uml-*` until then).
    `mode` is subject to the umask. OSError names `path`.
    """
    given = path
    if replace:
        path = os.path.realpath(path)
    elif os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    directory = os.path.dirname(path) or "."
    with naming(given), _unnamed(directory, given) as (fd, temporary):
        os.fchmod(fd, mode & ~_umask())
        yield fd
        os.fsync(fd)
        _appear(fd, temporary, path, replace)
        sync_path(directory)


@contextmanager
def _unnamed(directory: str, path: str) -> Iterator[tuple[int, str]]:
    """A new file, and the name that it may have for the time of the context (it has none yet, if that can be)."""
    temporary = os.path.join(directory, f".uml-{secrets.token_hex(8)}")
    try:
        fd = _open_unnamed(directory, temporary)
    except OSError as error:
        error.filename = path
        raise
    try:
        yield fd, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.close(fd)


def _open_unnamed(directory: str, temporary: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NAMED_ONLY:
            raise
    return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _umask() -> int:
    """The umask, without changing it even for a moment: other threads make files too."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _appear(fd: int, temporary: str, path: str, replace: bool) -> None:
    """Give the file its name: a link does not replace what is there, a rename does."""
    named = os.path.lexists(temporary)
    if replace:
        if not named:
            _name(fd, temporary)
        return os.rename(temporary, path)
    try:
        _link(temporary, path) if named else _name(fd, path)
    except OSError as error:
        if not named or error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(temporary, path)


def _name(fd: int, path: str) -> None:
    """Give a name to a file without one."""
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _link(str(fd), path, descriptors)
    finally:
        os.close(descriptors)


def _link(source: str, target: str, directory: int | None = None) -> None:
    try:
        # With a directory Python calls linkat and follows a symbolic link, else link.
        os.link(source, target, src_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None


def sync_path(path: str | os.PathLike[str]) -> None:
    """Durable on return: the names in the directory, or the contents of the file, at `path`. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a filesystem that cannot, and so keeps names safe in its own way or not
            raise
    finally:
        os.close(fd)


def write_new(path: str, content: bytes, mode: int = 0o644) -> None:
    """Make the file `path`, or let a new one take its place: after a power cut it has the old content or the new."""
    with new_file(path, mode, replace=True) as fd:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]


def is_special(path: str) -> bool:
    """Whether something is at `path` that is not a regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
