"""Names that may be used below a directory of the host."""

from __future__ import annotations

import errno
from typing import Final

from umlfs.host.syscalls import failure

NAME_MAX: Final = 255
"""The longest name, in bytes, of any filesystem of Linux."""


def check_name(name: bytes) -> None:
    """EINVAL unless `name` is one path component that leads downwards; ENAMETOOLONG if it is longer than `NAME_MAX`."""
    if not name or b"/" in name or b"\0" in name or name == b"." or name == b"..":
        raise failure(errno.EINVAL)
    if len(name) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG)
