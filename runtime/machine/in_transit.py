"""What is just coming to a machine, or leaving it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

K = TypeVar("K")


class InTransit(set[K]):
    """The places that nobody else may change meanwhile."""

    @contextlib.contextmanager
    def changing(self, place: K) -> Iterator[None]:
        """`place` is one of them within."""
        self.add(place)
        try:
            yield
        finally:
            self.remove(place)
