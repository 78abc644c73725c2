"""Split virtqueues as the device sees them: guest memory in, descriptor chains out. No sockets.

Defined in the Virtio specification 1.1, section 2.6 (split virtqueues), and seen through vhost-user:
everything is little-endian and all addresses are guest addresses.

The guest is hostile. Every address is checked against the memory regions, every index against the ring,
every chain against loops. What the guest got wrong raises `RingError`, after which the queue is of no more use.
The guest may change its memory at any time: everything is read once, then judged.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from umlfs.statistics import Statistics
from umlfs.virtio.polling import Polling

DESC_NEXT: Final = 1
DESC_WRITE: Final = 2
DESC_INDIRECT: Final = 4
AVAIL_NO_INTERRUPT: Final = 1
USED_NO_NOTIFY: Final = 1

QUEUE_SIZE_MAX: Final = 1024
"""Descriptors in a ring, and so requests under way. The specification allows 32768, but the UML kernel has 256
and QEMU at most 1024: this bounds the tasks that a guest can make us run."""
CHAIN_MAX: Final = 1024
"""Descriptors in one chain. Linux never exceeds the size of its ring: this bounds the work of one request."""
CHAIN_BYTES_MAX: Final = (1 << 32) - 1
"""The bytes of one chain, by the specification. The same memory may lie in it many times over."""

IMAGE_MAX: Final = 256 << 10
"""Bytes of one chain that may lie in the kernel's own image, of which copies are made."""

ReadImage = Callable[[int, int], bytes]
"""Read so many bytes at a guest address below the first region. OSError."""

AtOnce = Callable[[list[memoryview], list[memoryview]], int]
"""Does a request at once, and returns how many bytes were written; -1 if it cannot, having done nothing."""

_DESCRIPTOR: Final = struct.Struct("<QIHH")
_USED_ELEMENT: Final = struct.Struct("<II")


class RingError(Exception):
    """The guest broke the rules of the ring or of its memory; the queue must be stopped."""


class Region(NamedTuple):
    """A piece of guest memory: `view` holds the bytes from guest address `start`."""

    start: int
    user: int
    """The address that the front end itself uses for `start`; ring addresses are given so."""
    view: memoryview

    @property
    def end(self) -> int:
        return self.start + len(self.view)


class GuestMemory:
    """All regions of a guest's memory, and the only way into it."""

    def __init__(self, regions: Sequence[Region], read_image: ReadImage | None = None) -> None:
        """RingError for regions that overlap or reach beyond 64 bits.

        Below the first region is the kernel's image (a UML kernel shares the rest alone), whose page of zeroes it has
        devices read: `read_image` gets what is there.
        """
        self.regions = tuple(sorted(regions, key=lambda region: region.start))
        ends = [0, *(region.end for region in self.regions)]
        if any(end > region.start for end, region in zip(ends, self.regions, strict=False)) or ends[-1] > 1 << 64:
            raise RingError("memory regions that overlap or wrap around")
        self._spans = [(region.start, region.end, region.view) for region in self.regions]
        self._read_image = read_image

    def slice(self, address: int, length: int) -> memoryview:
        """`length` bytes at guest address `address`. RingError unless one region holds them all."""
        for start, end, view in self._spans:
            if start <= address and address + length <= end:
                return view[address - start : address - start + length]
        raise RingError(f"{length} bytes at {address:#x} are outside guest memory")

    def pieces(self, address: int, length: int) -> list[memoryview]:
        """The same over regions that lie side by side, a buffer from each."""
        for start, end, view in self._spans:
            if start <= address < end:
                if address + length <= end:
                    return [view[address - start : address - start + length]]
                return [view[address - start :], *self.pieces(end, address + length - end)]
        raise RingError(f"{length} bytes at {address:#x} are outside guest memory")

    def image(self, address: int, length: int) -> memoryview:
        """A copy of `length` bytes of the kernel's image. RingError."""
        first = self.regions[0] if self.regions else None
        if self._read_image is not None and first is not None and address + length <= first.start:
            try:
                found = self._read_image(address, length)
            except (OSError, OverflowError):
                found = b""
            if len(found) == length:
                return memoryview(found)
        raise RingError(f"{length} bytes at {address:#x} are outside guest memory")

    def slice_user(self, address: int, length: int) -> memoryview:
        """As `slice`, for an address of the front end (SET_VRING_ADDR)."""
        for region in self.regions:
            offset = address - region.user
            if offset >= 0 and offset + length <= len(region.view):
                return region.view[offset : offset + length]
        raise RingError(f"{length} bytes at {address:#x} are outside guest memory")


@dataclass(slots=True)
class Chain:
    """One request: what the device may read, and where it may write."""

    head: int
    readable: list[memoryview]
    writable: list[memoryview]


def interrupt(call: int) -> None:
    """Tell the guest by its eventfd that something was pushed. A full one means that it has not looked yet."""
    with contextlib.suppress(OSError):
        os.write(call, b"\1\0\0\0\0\0\0\0")


class Virtqueue:
    """The device's side of one split ring.

    `pop` takes requests, `push` gives them back. Neither blocks. Kicks and interrupts are the caller's;
    `suppress_kicks`, `resume_kicks` and `wants_interrupt` say when they are needed.
    """

    def __init__(self, memory: GuestMemory, size: int, desc: int, avail: int, used: int, base: int = 0) -> None:
        """Rings at the front end's addresses; `base` is the index of the next request to take. What was given back
        before, the used ring itself tells. RingError if the rings do not fit."""
        if not 0 < size <= QUEUE_SIZE_MAX or size & (size - 1):
            raise RingError(f"ring of {size} descriptors")
        if desc % 16 or avail % 2 or used % 4:
            raise RingError("ring not aligned")
        self.size = size
        self._addresses = desc, avail, used
        self._next_avail = base & 0xFFFF
        self._taken = 0
        """Requests popped and not yet pushed; a guest can have at most `size`."""
        self._fence = threading.Lock()
        self.remap(memory)
        self._next_used = self._used_header[1]

    def remap(self, memory: GuestMemory) -> None:
        """The same rings in a new mapping of the guest's memory. Chains popped before keep the old one."""
        desc, avail, used = self._addresses
        descriptors = memory.slice_user(desc, 16 * self.size)
        available = memory.slice_user(avail, 4 + 2 * self.size)
        used_view = memory.slice_user(used, 4 + 8 * self.size)
        self.memory = memory
        self._descriptors = descriptors
        self._avail = available.cast("H")
        """flags, index, ring."""
        self._used_header = used_view[:4].cast("H")
        """flags, index."""
        self._used_ring = used_view[4:]

    @property
    def next_index(self) -> int:
        """The index (modulo 65536) of the next request to be popped."""
        return self._next_avail

    def pending(self) -> bool:
        """Whether the guest has offered something that was not popped."""
        return self._avail[1] != self._next_avail

    def pop(self) -> Chain | None:
        """The next request, or None. RingError for anything that breaks the rules."""
        offered = self._avail[1]
        next_avail = self._next_avail
        if offered == next_avail:
            return None
        if (offered - next_avail) & 0xFFFF > self.size - self._taken:
            raise RingError(f"available index {offered} is past the ring (at {next_avail})")
        head = self._avail[2 + (next_avail & (self.size - 1))]
        chain = self._chain(head)
        self._next_avail = (next_avail + 1) & 0xFFFF
        self._taken += 1
        return chain

    def push(self, head: int, written: int) -> None:
        """Give back the request that began at descriptor `head`, `written` bytes having been written."""
        index = self._next_used
        _USED_ELEMENT.pack_into(self._used_ring, 8 * (index & (self.size - 1)), head, written)
        self._next_used = index = (index + 1) & 0xFFFF
        self._taken -= 1
        self._used_header[1] = index

    def serve(
        self,
        at_once: AtOnce | None,
        statistics: Statistics,
        polling: Polling,
        call: int,
        until: float,
        served: bool,
    ) -> tuple[Chain | None, int, bool]:
        """Take requests, answer them by `at_once`, and tell the guest by `call` (an eventfd, or -1), until one is not
        for it: that one is returned. None when there are no more, which is looked for as long as `polling` says (unless
        nothing was `served`), or at the time `until` (of the monotonic clock).

        Two more are returned: how many were answered, and whether looking for more was in vain. RingError."""
        count = 0
        looking_until = 0.0
        while (now := time.monotonic()) < until:
            if (chain := self.pop()) is not None:
                if looking_until:
                    polling.found()
                    looking_until = 0.0
                if at_once is None or (written := at_once(chain.readable, chain.writable)) < 0:
                    return chain, count, False
                self.push(chain.head, written)
                if call >= 0 and self.wants_interrupt():
                    interrupt(call)
                count += 1
                statistics.took(time.monotonic() - now)
            elif now < looking_until:
                os.sched_yield()
            elif (served or count) and not looking_until and (seconds := polling.seconds()):
                looking_until = now + seconds
            else:
                if looking_until:
                    polling.missed()
                return None, count, bool(looking_until)
        return None, count, False

    def wants_interrupt(self) -> bool:
        """Whether the guest wants to be told of what was pushed."""
        self._barrier()
        return not self._avail[0] & AVAIL_NO_INTERRUPT

    def suppress_kicks(self) -> None:
        """The guest need not kick: the caller looks for itself."""
        self._used_header[0] = USED_NO_NOTIFY

    def resume_kicks(self) -> None:
        """The guest must kick again. What it offered meanwhile, `pending` tells afterwards."""
        self._used_header[0] = 0
        self._barrier()

    def _barrier(self) -> None:
        # Taking a lock is a full memory barrier: a store before it is seen by the guest before anything
        # after it is read. The ring protocol needs that where each side stores, then looks; all other
        # orders that it needs, the processors that UML runs on keep of themselves.
        with self._fence:
            pass

    def _chain(self, head: int) -> Chain:
        size = self.size
        if head >= size:
            raise RingError(f"descriptor {head} of {size}")
        address, length, flags, _following = _DESCRIPTOR.unpack_from(self._descriptors, 16 * head)
        if flags & DESC_INDIRECT:
            if flags & DESC_NEXT:
                raise RingError("an indirect descriptor goes on")
            if not length or length % 16 or length > 16 * CHAIN_MAX:
                raise RingError(f"an indirect table of {length} bytes")
            return self._walk(head, self.memory.slice(address, length), length // 16, 0)
        return self._walk(head, self._descriptors, size, head)

    def _walk(self, head: int, table: memoryview, entries: int, index: int) -> Chain:
        """Follow a chain, joining descriptors that lie side by side in memory."""
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        pieces = self.memory.pieces
        copies: dict[tuple[int, int], memoryview] = {}
        total = run_start = run_length = run_write = 0
        for _ in range(min(entries, CHAIN_MAX)):
            address, length, flags, index = _DESCRIPTOR.unpack_from(table, 16 * index)
            write = flags & DESC_WRITE
            if flags & DESC_INDIRECT:
                raise RingError("an indirect descriptor inside a chain")
            if write < run_write:
                raise RingError("a readable descriptor after a writable one")
            total += length
            if run_length and write == run_write and address == run_start + run_length:
                run_length += length
            else:
                if run_length:
                    if run_write:
                        writable.extend(pieces(run_start, run_length))
                    else:
                        readable.extend(self._readable(run_start, run_length, copies))
                run_start, run_length, run_write = address, length, write
            if not flags & DESC_NEXT:
                if total > CHAIN_BYTES_MAX:
                    raise RingError(f"a chain of {total} bytes")
                if run_length:
                    if run_write:
                        writable.extend(pieces(run_start, run_length))
                    else:
                        readable.extend(self._readable(run_start, run_length, copies))
                return Chain(head, readable, writable)
            if index >= entries:
                raise RingError(f"descriptor {index} of {entries}")
        raise RingError("a descriptor chain without an end")

    def _readable(self, address: int, length: int, copies: dict[tuple[int, int], memoryview]) -> list[memoryview]:
        """What the device may read, in the guest's memory or in its kernel's image. `copies` are those of this chain:
        the page of zeroes is often there many times. RingError."""
        try:
            return self.memory.pieces(address, length)
        except RingError:
            if (address, length) not in copies:
                if sum(map(len, copies.values())) + length > IMAGE_MAX:
                    raise
                copies[address, length] = self.memory.image(address, length)
            return [copies[address, length]]
