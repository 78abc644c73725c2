"""Where kept appliances are found: a socket for each image, in a directory of this user's."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from runtime.standby import finding

HELLO_MAX: Final = 64 * 1024
"""Bytes of the line with which a kept appliance tells what it has."""


def make_directory() -> Path:
    """The directory of the sockets, made if it is missing."""
    directory = finding.directory()
    if not finding.is_ours(directory):
        os.makedirs(directory, 0o700, exist_ok=True)
    return Path(directory)


def socket_path(word: str) -> Path | None:
    """The socket for the image that the `SRC` word names; None if that is no file, so that nothing can be kept.

    Another file, or one that was changed, has another. (Those who write to an image in use are kept out by its lock, if
    they honour it.)
    """
    scheme, colon, rest = word.partition(":")
    path = rest if colon and scheme in ("raw", "cow") and not os.path.lexists(word) else word
    files = path.split(",")
    digest = hashlib.sha256(word.partition(":")[0].encode() if path != word else b"")
    for each in files:
        try:
            status = os.stat(each)
        except OSError:
            return None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            return None
        digest.update(repr((os.path.realpath(each), status.st_dev, status.st_ino, status.st_size)).encode())
        digest.update(repr(status.st_mtime_ns).encode())
    return Path(finding.directory(), digest.hexdigest()[:20])


def connect(word: str) -> socket.socket | None:
    """A connection to the kept appliance of the image; None if there is none. Does not wait for its answer."""
    path = socket_path(word)
    if path is None or not finding.is_ours(os.fspath(path.parent)):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        return None
    return connection
