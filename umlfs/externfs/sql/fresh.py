"""Directories that somebody is filling: they show what was put into them, and not yet what follows from it.

`cp -r` takes a directory that it made to be empty, and every name in it to be its own to make. But a table that has its
schema has all its files, and a row that has its key has its columns. Until the directory is listed, or nothing was made
in it for a while, it shows only what was made: then making the rest succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Final

_SECONDS: Final = 5.0
_MANY: Final = 1000


class FreshDirectories:
    """By the keys of their nodes."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[set[str], float]] = {}

    def begin(self, directory: Hashable) -> None:
        """It was made just now."""
        if len(self._made) > _MANY:
            self._sweep()
        self._made[directory] = set(), time.monotonic() + _SECONDS

    def is_fresh(self, directory: Hashable) -> bool:
        found = self._made.get(directory)
        if found is None:
            return False
        if found[1] > time.monotonic():
            return True
        del self._made[directory]
        return False

    def shows(self, directory: Hashable, name: str) -> bool:
        """Whether `name` is to be found in it, if it is there."""
        return not self.is_fresh(directory) or name in self._made[directory][0]

    def make(self, directory: Hashable, name: str) -> None:
        """`name` was made in it."""
        if self.is_fresh(directory):
            made = self._made[directory][0]
            made.add(name)
            self._made[directory] = made, time.monotonic() + _SECONDS

    def end(self, directory: Hashable) -> None:
        """It shows everything."""
        self._made.pop(directory, None)

    def _sweep(self) -> None:
        now = time.monotonic()
        self._made = {key: found for key, found in self._made.items() if found[1] > now}
