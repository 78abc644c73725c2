"""Cutting a list of buffers as if it were one: what a request hands over is scattered over guest memory."""

from __future__ import annotations

from collections.abc import Sequence


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


def scatter(data: bytes | memoryview, buffers: Sequence[memoryview]) -> int:
    """Copy `data` into `buffers` in turn, as far as both go; returns how many bytes that were."""
    done = 0
    for buffer in buffers:
        piece = data[done : done + len(buffer)]
        buffer[: len(piece)] = piece
        done += len(piece)
        if done == len(data):
            break
    return done
