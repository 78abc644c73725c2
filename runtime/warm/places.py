"""Where guests that stand are found: in the directory of kept appliances, which is this user's alone."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

from runtime.standby import finding


def keeper_path(key: str) -> Path:
    """The socket of the keeper of guests with these options."""
    return Path(finding.directory(), f"{_digest(key)}.keeper{finding.suffix()}k")


def guest_path(key: str, pid: int) -> Path:
    """The socket of the guest that the process `pid` has booted with these options."""
    return Path(finding.directory(), f"{_digest(key)}.{pid}{finding.warm_suffix()}")


def prolong(key: str, seconds: float) -> bool:
    """Have the keeper of such guests go on for `seconds` from now at least, or end, with 0; False if there is none."""
    path = keeper_path(key)
    if not finding.is_ours(str(path.parent)):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
            connection.sendall(b"%f\n" % seconds)
        except OSError:
            return False
    return True


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:20]
