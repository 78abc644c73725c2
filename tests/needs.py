"""What a test needs of the machine. A lack fails the test (a skipped test proves nothing), naming what mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

MEND = "./uml test installs what Debian has"
MEND_ROOT = "run the tests with sudo (sudo ./uml test …)"


def lack(why: str) -> NoReturn:
    """Fail the test, in one line that says `why`."""
    pytest.fail(f"needs {why}", pytrace=False)


def program(name: str) -> str:
    """The path of a program, also of those in the system directories that an ordinary user's PATH lacks."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        lack(f"the program {name}: {MEND}")
    return found


def path(name: str | Path, mend: str = MEND) -> Path:
    """A path that the caller may read and, if it is a device, write."""
    mode = os.R_OK | (os.W_OK if str(name).startswith("/dev/") else 0)
    if not os.access(name, mode):
        lack(f"access to {name}: {mend}")
    return Path(name)


def root() -> None:
    """The host's root must run this; where a command as root will do, ask for `as_root`.

    A test is marked `real_root` for the same, or `mapped_root` if root of a user namespace is as good.
    """
    if os.geteuid() != 0:
        lack(f"root: {MEND_ROOT}")


@cache
def as_root() -> tuple[str, ...]:
    """What to put before a command to run it as root: nothing for root, else a sudo that asks nothing."""
    if os.geteuid() == 0:
        return ()
    sudo = program("sudo")
    if subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0:
        lack("root, or sudo without a password")
    return (sudo, "-n")


def as_nobody() -> tuple[str, ...]:
    """What to put before a command to run it as an unprivileged user, with no groups of root's."""
    if os.geteuid() != 0:
        return ()
    return (program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups")


def mount_namespace() -> list[str]:
    """The words before a command that is to have mounts of its own; an ordinary user is root of a user namespace there.
    Fails where that is not allowed.

    In a chroot `/` is no mount, and its propagation cannot be changed; a mount made there is told to others only if
    the one that the chroot lies in is shared.
    """
    with open("/proc/self/mountinfo") as table:
        is_mount = any(line.split()[4] == "/" for line in table)
    words = [program("unshare"), "-m", "--propagation", "private" if is_mount else "unchanged"]
    return words if os.geteuid() == 0 else [*_allowed(program("unshare"), "-r"), *words[1:]]


MAPPED_ROOT = """
directory=$1; shift
"$@" --basetemp "$directory/pytest" && status=0 || status=$?
rm -rf "$directory/pytest"
exit $status
"""
"""Files of mapped users can be removed in the namespace only."""


def mapped_root(test: str, options: Iterable[str], directory: Path) -> None:
    """Run the test of that node id again, by a pytest with `options` that is root of a user namespace which has this
    user's subordinate users, and has mounts of its own. Fail as it does. `directory` is empty, and stays so."""
    words = _allowed(program("unshare"), "--map-root-user", "--map-auto")
    pytest_words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, test]
    command = [*words, "--mount", "sh", "-c", MAPPED_ROOT, "sh", str(directory), *pytest_words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"as root of a user namespace:\n{done.stdout}{done.stderr}", pytrace=False)


@cache
def _allowed(*unshare: str) -> tuple[str, ...]:
    """The words, if a user namespace can be made by them."""
    done = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        lack(f"root, or a user namespace ({done.stderr.strip()}): {MEND_ROOT}")
    return unshare
