"""Places in a guest where something can be mounted."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final

from umlfs.errors import UsageError

RESERVED: Final = ("/dev", "/proc", "/run", "/run/umlfs", "/sys")
"""What every guest mounts itself and cannot run without."""


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
