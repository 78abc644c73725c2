"""A private root that the guest's kernel reads by itself, by its own hostfs below the overlay: no request comes to us.

It shows less than our own does (see docs/run.md), and what keeps the kernel process inside the tree is the jail alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from runtime import guest
from runtime.jail.grants import Grants
from umlfs.errors import UsageError
from umlfs.sources import Source

WORD: Final = "--root-driver hostfs"


def root(source: Source, grants: Grants, *, writable: bool, jailed: bool) -> guest.Mount:
    """The guest's mount of `source`, which must be a directory; in a jail the grants for it too. UsageError."""
    if source.scheme != "hostfs":
        raise UsageError(f"{WORD}: {source} is no directory of this host", "leave it out")
    if writable:
        raise UsageError(f"{WORD} with --rw: the kernel's own hostfs keeps no owners", "leave out one of the two")
    directory = Path(os.path.realpath(source.argument))
    _check_word(directory)
    if jailed:
        _check_jail(directory)
        grants.hostfs = True
        grants.keep_user = "the kernel's own hostfs works as the caller"
        grants.read.append(directory)
    return guest.Mount("root", "/", "hostfs", f"ro,{directory}")


def _check_word(directory: Path) -> None:
    """UsageError for a path that mount options cannot say."""
    if not directory.is_dir():
        raise UsageError(f"{WORD}: {directory}: not a directory", "name the root of a userland")
    if "," in str(directory):
        raise UsageError(f"{WORD}: {directory}: a mount option has no commas in it", "leave it out")


def _check_jail(directory: Path) -> None:
    """UsageError for what a jail cannot show, or what would be the end of it."""
    if directory == Path("/"):
        raise UsageError(
            f"{WORD} of this host's whole root: a jailed kernel would have every Unix socket of the host within reach",
            "name a directory with a userland in it, leave it out, or trust the guest with --jail=off",
        )
    inside = _mounted_below(directory)
    if inside:
        raise UsageError(f"{WORD}: {inside} is another filesystem, which a jail would not show", "leave it out")


def _mounted_below(directory: Path) -> str:
    """The first mount point inside of `directory`; empty if there is none."""
    start = f"{directory}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        places = (line.split()[4].replace("\\040", " ") for line in mounts)
        return next((place for place in places if place.startswith(start)), "")
