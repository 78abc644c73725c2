"""Places in a guest where something can be mounted."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterable
from typing import Final

from umlfs.errors import UsageError
from umlfs.filesystem import ROOT, Filesystem

RESERVED: Final = ("/dev", "/proc", "/run", "/run/umlfs", "/sys")
"""What every guest mounts itself and cannot run without."""

NEEDED: Final = ("/dev", "/proc", "/run", "/sys", "/tmp")
"""Directories that every root has."""


def check_places(places: Iterable[str]) -> None:
    """UsageError unless something can be mounted at each of `places`."""
    seen: set[str] = set()
    for place in places:
        path = "/" + posixpath.normpath(place).lstrip("/")
        if not place.startswith("/") or path == "/":
            raise UsageError(f"{place}: not a place to mount at", "give an absolute path other than / in the guest")
        if path in RESERVED or path.startswith("/run/umlfs/"):
            raise UsageError(f"{place}: not a place to mount at", "every guest has its own there")
        if path in seen:
            raise UsageError(f"{place}: two things to mount there", "give each a place of its own")
        seen.add(path)


async def check_there(root: Filesystem, places: Iterable[str]) -> None:
    """UsageError for a place that is missing in a root which is written through: a guest makes none there. What only
    the guest can know is not looked at: what a symlink leads to, and what is below another place."""
    given = [posixpath.normpath(place) for place in places]
    known = {*given, *RESERVED}
    for place in (*NEEDED, *given):
        parents = [place[:end] for end in range(1, len(place)) if place[end] == "/"]
        if not known.intersection(parents) and not await _is_there(root, place):
            raise UsageError(
                f"{place}: no such directory in the root, whose changes go through", "make it first, or leave out --rw"
            )


async def _is_there(root: Filesystem, place: str) -> bool:
    """Whether `place` is a directory or a file, or there is a symlink on the way to it."""
    found: list[int] = []
    try:
        for name in os.fsencode(place.strip("/")).split(b"/"):
            entry = await root.lookup(found[-1] if found else ROOT, name)
            if not entry.ino:
                return False
            found.append(entry.ino)
            if stat.S_ISLNK(entry.attr.mode):
                return True
        return True
    except FileNotFoundError:
        return False
    except OSError:  # the guest's kernel may know better, or say it better
        return True
    finally:
        for ino in found:
            with contextlib.suppress(OSError):
                root.forget(ino, 1)
