"""Lists of buffers as one run of bytes: what lies scattered in guest memory, cut, taken apart and filled.

Every list has as many buffers as a descriptor chain may have, so a walk over one is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence

Buffers = list[memoryview]


def total(buffers: Sequence[memoryview]) -> int:
    """The bytes in all of `buffers`, which are of single bytes."""
    return len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))


def part(buffers: Sequence[memoryview], start: int, length: int) -> list[memoryview]:
    """The `length` bytes from `start` of the concatenation of `buffers`, as views of the same memory."""
    found = []
    for buffer in buffers:
        if length <= 0:
            break
        if start >= len(buffer):
            start -= len(buffer)
            continue
        piece = buffer[start : start + length]
        found.append(piece)
        length -= len(piece)
        start = 0
    return found


def fill_zeroes(buffers: Sequence[memoryview], start: int = 0) -> None:
    """Overwrite everything from `start` with zeroes."""
    for buffer in part(buffers, start, total(buffers) - start):
        buffer[:] = bytes(len(buffer))


def all_zero(buffers: Sequence[memoryview]) -> bool:
    """Whether there is nothing but zeroes in `buffers`."""
    return all(bytes(buffer) == bytes(len(buffer)) for buffer in buffers)


def scatter(data: bytes | bytearray | memoryview, buffers: Sequence[memoryview]) -> int:
    """Copy `data` into `buffers` in turn, as far as both go; returns how many bytes that were."""
    done, length = 0, len(data)
    for buffer in buffers:
        end = done + len(buffer)
        if end >= length:
            buffer[: length - done] = data[done:]
            return length
        buffer[:] = data[done:end]
        done = end
    return done


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
