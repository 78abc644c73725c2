"""What stands in a guest's private root for files of the host that the caller may not read.

Programs such as useradd, passwd, su and sudo need them, and whoever is root in a throwaway guest may have them: made
anew, without a secret of the host in them. They are put into the upper layer of the root's overlay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from runtime.guest import cpio

UPPER: Final = "upper"
"""The directory of the initramfs that is the overlay's upper layer."""

_SUDOERS: Final = """\
# Of a throwaway guest: the host's own may not be read.
Defaults env_reset
root ALL=(ALL:ALL) ALL
%sudo ALL=(ALL:ALL) NOPASSWD: ALL
"""


def _names(path: str) -> Iterator[list[str]]:
    """The lines of a file such as /etc/passwd."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.count(":") >= 3 and not line.startswith(("+", "-", "#")):
                    yield line.rstrip("\n").split(":")
    except OSError:
        return


def _shadow(root: str) -> str:
    """Everybody is there, and nobody has a password."""
    return "".join(f"{fields[0]}:*:19000:0:99999:7:::\n" for fields in _names(f"{root}/etc/passwd"))


def _gshadow(root: str) -> str:
    return "".join(f"{fields[0]}:*::{fields[3]}\n" for fields in _names(f"{root}/etc/group"))


def _sudoers(root: str) -> str:
    return _SUDOERS


def _empty(root: str) -> str:
    return ""


_MADE: Final[dict[str, tuple[int, Callable[[str], str]]]] = {
    "etc/shadow": (0o640, _shadow),
    "etc/shadow-": (0o600, _shadow),
    "etc/gshadow": (0o640, _gshadow),
    "etc/gshadow-": (0o600, _gshadow),
    "etc/subuid-": (0o600, _empty),
    "etc/subgid-": (0o600, _empty),
    "etc/sudoers": (0o440, _sudoers),
    "etc/security/opasswd": (0o600, _empty),
    "etc/.pwd.lock": (0o600, _empty),
}


def entries(root: str) -> Iterator[cpio.CpioEntry]:
    """What to add to the initramfs of a guest whose private root is the directory `root` of the host."""
    for name, (permissions, make) in _MADE.items():
        path = os.path.join(root, name)
        if os.path.exists(path) and not os.access(path, os.R_OK, effective_ids=True):
            content = make(root.rstrip("/")).encode(errors="surrogateescape")
            yield cpio.file(f"{UPPER}/{name}".encode(), content, permissions)
