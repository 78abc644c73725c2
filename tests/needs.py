"""What a test needs of the machine. A lack fails the test (a skipped test proves nothing), naming what mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

MEND = "./uml test installs what Debian has"


def program(name: str) -> str:
    """The path of a program, also of those in the system directories that an ordinary user's PATH lacks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"needs the program {name}: {MEND}")
    return found


def path(name: str | Path, mend: str = MEND) -> Path:
    """A path that the caller may read and, if it is a device, write."""
    mode = os.R_OK | (os.W_OK if str(name).startswith("/dev/") else 0)
    if not os.access(name, mode):
        pytest.fail(f"needs access to {name}: {mend}")
    return Path(name)


def root() -> None:
    """The test must run as root itself; where a command as root will do, ask for `as_root`."""
    if os.geteuid() != 0:
        pytest.fail("needs root: run the tests with sudo")


@cache
def as_root() -> tuple[str, ...]:
    """What to put before a command to run it as root: nothing for root, else a sudo that asks nothing."""
    if os.geteuid() == 0:
        return ()
    sudo = program("sudo")
    if subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0:
        pytest.fail("needs root, or sudo without a password")
    return (sudo, "-n")


def as_nobody() -> tuple[str, ...]:
    """What to put before a command to run it as an unprivileged user, with no groups of root's."""
    if os.geteuid() != 0:
        return ()
    return (program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups")


def mount_namespace() -> list[str]:
    """The words before a command that is to have mounts of its own. Fails where that is not allowed.

    In a chroot `/` is no mount, and its propagation cannot be changed; a mount made there is told to others only if
    the one that the chroot lies in is shared.
    """
    root()
    with open("/proc/self/mountinfo") as table:
        is_mount = any(line.split()[4] == "/" for line in table)
    return [program("unshare"), "-m", "--propagation", "private" if is_mount else "unchanged"]
