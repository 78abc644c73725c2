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
    name: str = ""
    """Of a volume: how it is named behind the disk."""
    device: BlockDevice | None = None
    """Of a volume: its blocks."""
    problem: str = ""
    """Of a volume or a partition that cannot be used: why."""

    @property
    def label(self) -> str:
        """What stands for it behind the disk's name; empty for the whole."""
        return self.name or ("" if self.number is None else str(self.number))

    @property
    def mountable(self) -> bool:
        return self.kind in KINDS

    def of(self, device: BlockDevice) -> BlockDevice:
        """The part as a device; the whole one is `device` itself."""
        if self.device is not None:
            return self.device
        return device if self.number is None else Slice(device, self.offset, self.size)


def choose(word: str, found: list[Part], number: int | None) -> Part:
    """The part with the wanted filesystem: the one with `number`, or the only one. UmlError, UsageError."""
    chosen = _numbered(found, number) if number is not None else found
    if number is not None and not chosen:
        there = ", ".join(str(each.number) for each in found if each.number is not None) or "none"
        raise UsageError(f"{word}: no partition {number}", f"there is {there}")
    if number is None and len(found) != 1:
        chosen = [each for each in found if each.mountable]
        if len(chosen) > 1:
            names = ", ".join(f"{each.label} ({each.kind})" for each in chosen)
            what = "volumes" if any(each.name for each in chosen) else "partitions"
            example = f"{word}:{chosen[-1].label if chosen[-1].name else 'N'}"
            raise UsageError(f"{word}: has several filesystems, in {what} {names}", f"name one: {example}")
        for each in found:
            if each.problem and not chosen:
                raise UmlError(f"{word}:{each.label}: {each.problem}", None)
    if chosen and chosen[0].problem:
        raise UmlError(f"{word}:{chosen[0].label}: {chosen[0].problem}", None)
    if not chosen or not chosen[0].mountable:
        what = f"{chosen[0].kind}" if chosen and chosen[0].kind else "nothing known"
        where = word if number is None else f"{word}:{number}"
        raise UmlError(f"{where}: no filesystem to look into ({what})", f"known are {', '.join(KINDS)}")
    return chosen[0]


def _numbered(found: list[Part], number: int) -> list[Part]:
    """The partition of that number; what is encrypted in it, or the array that it is a member of, if it is that."""
    inside = [each for each in found if each.name in (f"luks{number}", f"md{number}")]
    return inside[-1:] or [each for each in found if each.number == number]
