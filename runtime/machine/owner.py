"""To whom in a guest the files of an ordinary caller belong: its root, or the user that the command runs as."""

from __future__ import annotations

import os
import stat
from typing import Final

ROOT: Final = (0, 0)
_SIZE_MAX: Final = 1 << 20
"""Bytes of a password file that are looked at."""


def owner(root: str, user: str | None) -> tuple[int, int]:
    """The uid and gid in the guest of `user`, a name or a number, where the root's source is `root`.

    The guest's root if nobody is named, or nobody knows who that is.
    """
    return (None if user is None else find(root, user)) or ROOT


def find(root: str, user: str) -> tuple[int, int] | None:
    """The uid and gid of `user`; None if nobody knows who that is, as where the root is no directory of this host."""
    for line in _passwords(root):
        fields = line.split(":")
        if len(fields) > 3 and user in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            return int(fields[2]), int(fields[3])
    from umlfs.views.identity import ID_MAX

    if user.isdecimal() and int(user) <= ID_MAX:
        return int(user), int(user)
    return None


def _passwords(root: str) -> list[str]:
    try:
        fd = os.open(os.path.join(root.removeprefix("hostfs:"), "etc/passwd"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        return file.read(_SIZE_MAX).decode(errors="surrogateescape").splitlines()
