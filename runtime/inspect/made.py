"""What a copy made itself, so that it does not replace that."""

from __future__ import annotations

import contextlib

import trio

from umlfs.filesystem import Filesystem


class Made:
    """Nodes that are this copy's own, by directory. Two names may be one at the target, as on FAT, or two places may be
    copied to one name: the second must not take the place of the first."""

    def __init__(self, filesystem: Filesystem, *, replacing: bool) -> None:
        """Without `replacing` nothing is remembered: a name that is there is an error anyway."""
        self._filesystem = filesystem
        self._replacing = replacing
        self._turn = trio.Lock()
        self._inos: dict[int, set[int]] = {}

    def taking_name(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Held from the look at what has a name to `add` of the new node that takes its place."""
        return self._turn if self._replacing else contextlib.nullcontext()

    def add(self, parent: int, ino: int) -> None:
        """`ino` is the copy's own."""
        if self._replacing:
            self._inos.setdefault(parent, set()).add(ino)

    def has(self, parent: int, ino: int) -> bool:
        """Whether `ino` is the copy's own."""
        return ino in self._inos.get(parent, ())

    def done(self, parent: int, ino: int) -> None:
        """Nothing more is done with the copy's own `ino`. It keeps its number until the directory is `left`."""
        if not self.has(parent, ino):
            self._filesystem.forget(ino, 1)

    def left(self, parent: int, keep: frozenset[int]) -> None:
        """The copy is done with the directory. What is in `keep` is still used."""
        for ino in self._inos.pop(parent, set()) - keep:
            self._filesystem.forget(ino, 1)
