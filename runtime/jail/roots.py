"""Whether this process can give a kernel a root of its own: its capabilities do not tell, where some security module
or a filter of system calls forbids mounts."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from runtime.jail import report, users
from runtime.jail.layers import Layer
from umlfs.errors import UmlError

CLONE_NEWNS: Final = 0x00020000
NOWHERE: Final = "/nowhere"
"""A program that is not there: the launcher ends when it would execute it."""


CONFINED: Final = Path("/proc/self/attr/current")
UNCONFINED: Final = ("", "unconfined", "kernel")
"""What it says where no security module confines this process."""


def may_be_forbidden() -> bool:
    """Whether anything might keep root from it that has the capability to mount."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        filters = next(line.split()[1] for line in lines if line.startswith("Seccomp:"))
        return filters != "0" or not users.may_change_roots() or _confinement() not in UNCONFINED
    return True


def _confinement() -> str:
    with contextlib.suppress(OSError):
        return CONFINED.read_bytes().rstrip(b"\0\n").decode(errors="replace")
    return ""


def can_be_replaced(launcher: int) -> bool:
    """Tried, by root: `launcher` is a descriptor of the launcher. Blocks for some milliseconds. OSError."""
    near, far = socket.socketpair()
    with near, tempfile.TemporaryDirectory() as place:
        with far:
            steps = ["unshare", str(CLONE_NEWNS), "layer", Layer.ROOT, "", "root", place, "pivot"]
            command = [f"/proc/self/fd/{launcher}", str(far.fileno()), "0", "layer", "", "", *steps, "--", NOWHERE]
            subprocess.run(
                command, stdout=subprocess.DEVNULL, pass_fds=[launcher, far.fileno()], process_group=0, check=False
            )
        try:
            return Layer.ROOT in report.read(near).present
        except UmlError:
            return False
