"""Images taken as they are because they begin like no other kind; whoever writes to them shall not make one of them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

import trio

from umlfs.blocks.foreign import HEAD, format_of_head
from umlfs.blocks.raw import RawDevice, Storage
from umlfs.buffers import part, total
from umlfs.cow.header import READ_SIZE, BadHeader, NotCow, parse

_MARK: Final = max(8, HEAD)
"""Only a write that touches these bytes can turn an image into a COW file (magic, version) or one of qemu's."""


class PlainImage(RawDevice):
    """An image in which a guest or a client must not put the header of a COW file, or of qcow2 and the like.

    Whoever opens it next would find that header, and show any file of the host that it names as its backing file.
    """

    def __init__(self, storage: Storage, size: int, *, read_only: bool = False, discard: bool = True) -> None:
        super().__init__(storage, size, read_only=read_only, discard=discard)
        self._beginning = trio.Lock()
        """Held while the beginning is written: no other may complete a magic that was looked at."""

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """As the contract. EPERM for what would make the image one of another kind."""
        if offset >= _MARK:
            return await super().write_from(offset, buffers)
        async with self._beginning:
            # A copy: the guest could change its memory between the look and the write.
            head = b"".join(part(buffers, 0, READ_SIZE))
            result = await self._result(offset, head)
            if begins_cow_file(result) or format_of_head(result):
                raise OSError(
                    errno.EPERM, "this would make it an image of another kind (raw:FILE, or flag d, allows it)"
                )
            rest = part(buffers, len(head), total(buffers) - len(head))
            await super().write_from(offset, [memoryview(head), *rest])

    async def _result(self, offset: int, head: bytes) -> bytes:
        """How the image would begin after `head` was written."""
        found = memoryview(bytearray(min(_MARK, self.size)))
        if found and (offset or len(head) < len(found)):
            await self.read_into(0, [found])
        return bytes(found[:offset]) + head + bytes(found[offset + len(head) :])


def begins_cow_file(head: bytes) -> bool:
    """Whether `head` is the beginning of a COW file, whole or not, damaged or not."""
    try:
        parse(head)
    except NotCow:
        return False
    except BadHeader:
        pass  # the rest may come with the next write
    return True
