"""Lists of buffers as one run of bytes: what lies scattered in guest memory, taken apart and filled.

Every list has as many buffers as a descriptor chain may have, so a walk over one is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence

Buffers = list[memoryview]


def size_of(buffers: Sequence[memoryview]) -> int:
    """The bytes of all `buffers` together."""
    return sum(map(len, buffers))


def take(buffers: Buffers, size: int) -> bytes:
    """Remove the first `size` bytes from `buffers` and return a copy of them; fewer if there are fewer."""
    taken = bytearray()
    while buffers and len(taken) < size:
        part = buffers[0][: size - len(taken)]
        taken += part
        rest = buffers[0][len(part) :]
        if rest:
            buffers[0] = rest
        else:
            del buffers[0]
    return bytes(taken)


def after(buffers: Buffers, size: int) -> Buffers:
    """What follows the first `size` bytes of `buffers`."""
    if buffers and len(buffers[0]) == size:  # as good as always: a header has a buffer of its own
        return buffers[1:]
    for index, buffer in enumerate(buffers):
        if size < len(buffer):
            return [buffer[size:], *buffers[index + 1 :]]
        size -= len(buffer)
        if not size:
            return buffers[index + 1 :]
    return []


def limit(buffers: Buffers, size: int) -> Buffers:
    """The first `size` bytes of `buffers`."""
    if size_of(buffers) <= size:
        return buffers
    limited: Buffers = []
    for buffer in buffers:
        if size <= 0:
            break
        limited.append(buffer if len(buffer) <= size else buffer[:size])
        size -= len(buffer)
    return limited


def put(buffers: Sequence[memoryview], data: bytes | bytearray | memoryview) -> None:
    """Write `data` into `buffers`, from their start. What does not fit is left out."""
    start, length = 0, len(data)
    for buffer in buffers:
        end = start + len(buffer)
        if end >= length:
            buffer[: length - start] = data[start:]
            return
        buffer[:] = data[start:end]
        start = end
