"""Where kept appliances are found: a socket for each image, in a directory of this user's."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Final

from runtime.standby import finding
from umlfs.sources import Source

HELLO_MAX: Final = 64 * 1024
"""Bytes of the line with which a kept appliance tells what it has."""


def make_directory() -> Path:
    """The directory of the sockets, made if it is missing."""
    directory = finding.directory()
    if not finding.is_ours(directory):
        os.makedirs(directory, 0o700, exist_ok=True)
    return Path(directory)


def socket_path(source: Source) -> Path | None:
    """The socket for the image that `source` names; None if that is no file, so that nothing can be kept.

    Another file, or one that was changed, has another. (Those who write to an image in use are kept out by its lock, if
    they honour it.)
    """
    if not source.files or any(map(os.path.isdir, source.files)):
        return None
    try:
        digest = hashlib.sha256(repr(source.key()).encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    return Path(finding.directory(), digest.hexdigest()[:20])


def connect(source: Source) -> socket.socket | None:
    """A connection to the kept appliance of the image; None if there is none. Does not wait for its answer."""
    path = socket_path(source)
    if path is None or not finding.is_ours(os.fspath(path.parent)):
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        return None
    return connection
