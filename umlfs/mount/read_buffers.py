"""Buffers for the answers to reads, which are used again when nobody has a view of them any more."""

from __future__ import annotations

from typing import Final

KEPT_MAX: Final = 8
"""Buffers that are kept; the kernel seldom has more reads under way."""
SIZE: Final = 1 << 20
"""Of each: the largest read that libfuse asks for."""


class ReadBuffers:
    """A buffer belongs to whoever took it, and to whom he gave a view of it, until the last view is gone."""

    def __init__(self) -> None:
        self._kept: list[bytearray] = []

    def take(self, size: int) -> memoryview:
        """A view of `size` bytes, with anything in them."""
        if size > SIZE:
            return memoryview(bytearray(size))
        for buffer in self._kept:
            if _is_free(buffer):
                return memoryview(buffer)[:size]
        buffer = bytearray(SIZE)
        if len(self._kept) < KEPT_MAX:
            self._kept.append(buffer)
        return memoryview(buffer)[:size]


def _is_free(buffer: bytearray) -> bool:
    """Whether there is no view of it: a bytearray with one refuses to change its length."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
