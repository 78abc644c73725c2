"""Partitions of disks, as images of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from runtime.images.sink import Tick, no_tick, ticking
from umlfs.blocks import sparse
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.errors import UmlError, UsageError

if TYPE_CHECKING:
    from runtime.appliance.part import Part


def describe(found: list[Part]) -> str:
    """The partitions, for a person: their numbers and what is on them."""
    return ", ".join(f"{part.number} ({part.kind or 'unknown'})" for part in found) or "none"


def several(path: str, found: list[Part]) -> UsageError:
    """The error that a disk with partitions is no filesystem."""
    example = next((part.number for part in found if part.mountable), "N")
    return UsageError(f"{path}: a disk with partitions: {describe(found)}", f"name one: {path}:{example}")


async def extract(disk: Path, name: str, number: int, made: Path, progress: Tick = no_tick) -> None:
    """Make the file `made` with what is on partition `number` of the raw image `disk`, which messages call `name`; its
    holes stay holes. UsageError if there is no such partition; UmlError."""
    from runtime.appliance.disk import parts

    file = open_file(disk, read_only=True)
    try:
        found = await parts(RawDevice(file, file.size()))
        part = next((part for part in found if part.number == number), None)
        if part is None:
            there = [each for each in found if each.number is not None]
            raise UsageError(f"{name}: no partition {number}", f"there is {describe(there)}")
        if part.problem:
            raise UmlError(f"{name}:{number}: {part.problem}", "fetch it again")
        await trio.to_thread.run_sync(_copy, file.fileno(), part, made, ticking(progress))
    except OSError as error:
        raise UmlError(f"{name}: {error.strerror}", None) from error
    finally:
        file.close()


def _copy(source: int, part: Part, made: Path, tick: Tick) -> None:
    fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(fd, part.size)
        sparse.copy_data(source, fd, part.offset, 0, part.size, lambda count: tick(count >> 20, "MiB"))
        os.fsync(fd)
    finally:
        os.close(fd)
