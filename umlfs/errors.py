"""Errors for the person at the keyboard: one line that says what failed, why, and the way out."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator


class UmlError(Exception):
    """Something a person can mend.

    `str()` gives the whole line. `status` is the exit status of a command that ends with it: 1 for a
    failure, 2 for wrong usage. `details` are lines worth showing before it, such as the end of a log.
    """

    def __init__(self, what: str, way_out: str | None = None, *, status: int = 1, details: str = "") -> None:
        super().__init__(what, way_out)
        self.what = what
        self.way_out = way_out
        self.status = status
        self.details = details

    def __str__(self) -> str:
        return self.what if self.way_out is None else f"{self.what}; {self.way_out}"


class UsageError(UmlError):
    """Wrong usage: an argument that cannot mean anything."""

    def __init__(self, what: str, way_out: str | None = None) -> None:
        super().__init__(what, way_out, status=2)


def no_such(
    path: str | os.PathLike[str], way_out: str, *, what: str = "no such file or directory", shown: str | None = None
) -> UsageError:
    """That nothing is found at `path` (in words, `shown`): `what` it is, or what keeps the caller from seeing it."""
    why: OSError | None = None
    try:
        os.stat(path)
    except OSError as error:
        why = error
    if why is None or why.errno in (errno.ENOENT, errno.ENOTDIR):
        return UsageError(f"{shown or os.fspath(path)}: {what}", way_out)
    kept_out = "use one that you may open" if why.errno in (errno.EACCES, errno.EPERM) else None
    return UsageError(f"{shown or os.fspath(path)}: {why.strerror}", kept_out)


def described(error: OSError) -> str:
    """What failed and why, without the error's number."""
    why = error.strerror or str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return f"{' -> '.join(names)}: {why}" if names else why


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """In the block, an OSError that there is no room for what is written names `path`: a descriptor has no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            error.filename = os.fspath(path)
        raise


def sole(error: BaseException) -> BaseException:
    """The one exception in a group, however deep; the group itself if there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
