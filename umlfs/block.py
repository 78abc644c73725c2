"""The BlockDevice contract: what every provider of blocks implements and every server consumes.

Offsets and lengths are bytes. Errors are `OSError` with an errno. Every operation is `async def`: one that
may wait for a disk first tries without waiting, then goes to a thread. Requests may run concurrently; a
server orders those that must not overtake each other.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple


class ExtentKind(enum.Enum):
    """What a range of a device holds."""

    DATA = "data"
    """Allocated."""
    ZERO = "zero"
    """Reads as zeroes, with or without space allocated for it."""


class Extent(NamedTuple):
    """A range of a device that is all of one kind; `depth` counts the layers below the top that hold it."""

    offset: int
    length: int
    kind: ExtentKind
    depth: int = 0


class BlockDevice:
    """A device of `size` bytes.

    Errors are `OSError`: EINVAL for a range outside of `[0, size)`, EROFS for any change of a read-only device, ENOSPC
    and EIO for what stores it. The size need not be a multiple of `block_size`, and a request may begin and end at
    any byte.

    Concurrency: any number of operations may be under way at once. Two that overlap, one of them a change, have no
    order: a server does not send the second before the first is answered. A read that began after a write was answered
    sees all of it; `flush` covers what was answered before it began.

    Cancellation: an operation ends before its task goes on, so that no buffer is touched afterwards; a change may have
    happened in part, as after a power cut.

    Waiting: all may wait for a disk or a network, never on the loop.
    """

    size: int
    """In bytes; fixed while the device is open."""
    block_size: int = 512
    """The logical block size: offsets and lengths of guests are multiples of it. A write of one whole block, aligned,
    is never torn by a kill; a power cut may tear what the disk below tears."""
    read_only: bool = False
    """Writing of any kind raises EROFS."""
    can_discard: bool = True
    """`discard` frees space; else it is accepted and does nothing."""

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill all of `buffers` in turn from `offset` (bytes). There is no short read: EIO instead, and the buffers are
        undefined."""
        raise NotImplementedError

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Write all of `buffers` at `offset` (bytes). Durable only after `flush`. If it fails, any part of the
        range may hold the old or the new."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Durable on return: every write, discard and write of zeroes that was answered before this call. Once it
        failed it fails for ever: something was lost."""
        raise NotImplementedError

    async def discard(self, offset: int, length: int) -> None:
        """The range (bytes) is not needed any more. It reads as zeroes afterwards, or (where nothing below can be
        hidden by a hole and `can_discard` is False) as before; never as other, older data. Parts of blocks at its ends
        may be left as they are."""
        raise NotImplementedError

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        """The range (bytes) reads as zeroes afterwards, all of it; with `unmap` its space may be given back, without it
        is kept or allocated where the storage can."""
        raise NotImplementedError

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """The allocation map of a range: extents in order, without gaps, covering it exactly (the last may be
        cut off early where the map is long: then ask again from its end). At least one, for a range that is not empty.
        DATA is always right; ZERO is said only of what reads as zeroes. Changes meanwhile may or may not show."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give up every resource; no operation is under way. Does not flush. May be called twice."""
