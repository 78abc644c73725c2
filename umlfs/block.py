"""The BlockDevice contract: what every provider of blocks implements and every server consumes.

Offsets and lengths are bytes. Errors are `OSError` with an errno. Every operation is `async def`: one that
may wait for a disk first tries without waiting, then goes to a thread. Requests may run concurrently; a
server orders those that must not overtake each other.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class ExtentKind(enum.Enum):
    """What a range of a device holds."""

    DATA = "data"
    """Allocated."""
    ZERO = "zero"
    """Reads as zeroes, with or without space allocated for it."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a device that is all of one kind; `depth` counts the layers below the top that hold it."""

    offset: int
    length: int
    kind: ExtentKind
    depth: int = 0


class BlockDevice:
    """A device of `size` bytes. Requests outside `[0, size)` raise EINVAL; the size need not be a multiple
    of `block_size`, and a request may end at the very end of the device."""

    size: int
    """In bytes; fixed while the device is open."""
    block_size: int = 512
    """The logical block size: offsets and lengths of guests are multiples of it."""
    read_only: bool = False
    """Writing of any kind raises EROFS."""
    can_discard: bool = True
    """`discard` frees space; else it is accepted and does nothing."""

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill all of `buffers` in turn from `offset`."""
        raise NotImplementedError

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Write all of `buffers` at `offset`. Durable only after `flush`."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Durable on return: every write, discard and write of zeroes that was answered before this call."""
        raise NotImplementedError

    async def discard(self, offset: int, length: int) -> None:
        """The range is not needed any more. It reads as zeroes afterwards, or (where nothing below can be
        hidden by a hole and `can_discard` is False) as before; never as other, older data."""
        raise NotImplementedError

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        """The range reads as zeroes afterwards; with `unmap` its space may be given back."""
        raise NotImplementedError

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """The allocation map of a range: extents in order, without gaps, covering it exactly (the last may be
        cut off early where the map is long: then ask again from its end)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give up every resource. Does not flush."""
