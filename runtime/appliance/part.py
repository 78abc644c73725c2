"""The parts of a disk, and which of them is meant."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.appliance.kinds import KINDS
from umlfs.block import BlockDevice
from umlfs.blocks.slice import Slice
from umlfs.errors import UmlError, UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a disk that may hold a filesystem: a partition, or the whole."""

    number: int | None
    """None for the whole."""
    offset: int
    size: int
    kind: str | None
    """As `umlfs.blocks.probe` has it."""

    @property
    def mountable(self) -> bool:
        return self.kind in KINDS

    def of(self, device: BlockDevice) -> BlockDevice:
        """The part as a device; the whole one is `device` itself."""
        return device if self.number is None else Slice(device, self.offset, self.size)


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
        what = f"{chosen[0].kind}" if chosen and chosen[0].kind else "nothing known"
        where = word if number is None else f"{word}:{number}"
        raise UmlError(f"{where}: no filesystem to look into ({what})", f"known are {', '.join(KINDS)}")
    return chosen[0]
