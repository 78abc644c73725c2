"""A source of blocks, and what parts it has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from runtime.appliance.kinds import KINDS
from runtime.appliance.qemu import format_of, qemu_image
from umlfs import sources
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.probe import PARTITIONED, probe
from umlfs.serve.blockfiles import partitions
from umlfs.slice import Slice


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a disk that may hold a filesystem: a partition, or the whole."""

    number: int | None
    """None for the whole."""
    offset: int
    size: int
    kind: str | None
    """As `umlfs.probe` has it."""

    @property
    def mountable(self) -> bool:
        return self.kind in KINDS

    def of(self, device: BlockDevice) -> BlockDevice:
        """The part as a device; the whole one is `device` itself."""
        return device if self.number is None else Slice(device, self.offset, self.size)


def qemu_format(word: str) -> str | None:
    """qemu's name for the format of the image that `word` names; None for all other sources."""
    try:
        return format_of(word) if os.path.isfile(word) else None
    except OSError:
        return None


@contextlib.asynccontextmanager
async def opened(word: str, *, writable: bool = False) -> AsyncIterator[Filesystem | BlockDevice]:
    """The source `word`, images of qemu's formats too. UmlError or UsageError if it cannot be used."""
    image_format = qemu_format(word)
    if image_format is not None:
        if writable:
            raise UmlError(f"{word}: a {image_format} image, which can only be read", "'qemu-img convert' makes it raw")
        async with qemu_image(word, image_format) as device:
            yield device
        return
    try:
        # Tools ask once: there is nothing to keep an eye on.
        found = await sources.parse(word).open(sources.OpenOptions(read_only=not writable, snapshot=True))
    except OSError as error:
        raise UmlError(f"{word}: {os.strerror(error.errno or 0)}", "use a source that you may open") from error
    try:
        yield found
        if isinstance(found, BlockDevice) and writable:
            await found.flush()
    finally:
        with trio.CancelScope(shield=True):
            await found.close()


async def parts(device: BlockDevice) -> list[Part]:
    """The partitions of `device`; where it has none, the whole. OSError."""
    kind = await probe(device)
    if kind != PARTITIONED:
        return [Part(None, 0, device.size, kind)]
    found = []
    for each in await partitions(device):
        found.append(Part(each.number, each.offset, each.length, await probe(Slice(device, each.offset, each.length))))
    return found


def choose(word: str, found: list[Part], number: int | None) -> Part:
    """The part with the wanted filesystem: the one with `number`, or the only one. UmlError, UsageError."""
    chosen = [each for each in found if each.number == number] if number is not None else found
    if number is not None and not chosen:
        there = ", ".join(str(each.number) for each in found if each.number is not None) or "none"
        raise UsageError(f"{word}: no partition {number}", f"there is {there}")
    if number is None and len(found) != 1:
        chosen = [each for each in found if each.mountable]
        if len(chosen) > 1:
            names = ", ".join(f"{each.number} ({each.kind})" for each in chosen)
            raise UsageError(f"{word}: has several filesystems, in partitions {names}", f"name one: {word}:N")
    if not chosen or not chosen[0].mountable:
        what = f"{chosen[0].kind} is none" if chosen and chosen[0].kind else "nothing known"
        where = word if number is None else f"{word}:{number}"
        raise UmlError(f"{where}: no filesystem to look into ({what})", f"known are {', '.join(KINDS)}")
    return chosen[0]
