"""The changes of a filesystem as a view of it shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from umlfs.filesystem import Change, Changes

Shown = Callable[[Change], Iterable[Change]]
"""What one change is, seen through the view."""


class ShownChanges:
    """`Changes` of which `shown` is heard. Inode numbers are the same."""

    def __init__(self, inner: Changes, shown: Shown) -> None:
        self._inner = inner
        self._shown = shown
        self.path = inner.path
        self.known = inner.known
        self.again = inner.again
        self.lost = inner.lost

    def listen(self, hear: Callable[[Change], None]) -> None:
        """See `Changes.listen`."""

        def heard(change: Change) -> None:
            for each in self._shown(change):
                hear(each)

        self._inner.listen(heard)
