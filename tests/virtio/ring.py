"""The driver's side of a split virtqueue, in any piece of memory: for tests of the device's side.

Nothing here keeps to the rules but what is asked to: a test of a hostile guest writes what it likes with
`descriptor`, `offer` and the memory itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

NEXT, WRITE, INDIRECT = 1, 2, 4
_DESCRIPTOR = struct.Struct("<QIHH")


@dataclass(slots=True)
class Pending:
    """A chain that was offered: what it is made of, until the device gives it back."""

    head: int
    descriptors: list[int]
    spaces: list[tuple[int, int]]
    """Address and length of each writable buffer."""


@dataclass
class DriverRing:
    """A ring and the memory for its buffers, in `memory`, whose first byte has the guest address `base`.

    The ring begins at `start`, the buffers follow it up to `end`. Buffers are given out in turn and never
    given back: when the end is reached they start over, so a test must not have too much under way at once.
    """

    memory: memoryview
    base: int
    size: int = 256
    start: int = 0
    end: int = 0
    pending: dict[int, Pending] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.end = self.end or len(self.memory)
        self.desc = self.start
        self.avail = self.desc + 16 * self.size
        self.used = -(-(self.avail + 4 + 2 * self.size) // 8) * 8
        self.buffers = -(-(self.used + 4 + 8 * self.size) // 4096) * 4096
        self.reset()

    def reset(self) -> None:
        """As a driver that binds: an empty ring at index 0."""
        self.memory[self.start : self.buffers] = bytes(self.buffers - self.start)
        self.pending.clear()
        self.offered = 0
        self.seen = 0
        self._free = list(reversed(range(self.size)))
        self._place = self.buffers

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Guest addresses of descriptors, available ring, used ring."""
        return self.base + self.desc, self.base + self.avail, self.base + self.used

    # As a driver does it ----------------------------------------------------------------------

    def allocate(self, length: int, align: int = 1) -> int:
        """The guest address of fresh memory."""
        place = -(-self._place // align) * align
        if place + length > self.end:
            place = -(-self.buffers // align) * align
            assert place + length <= self.end, "no room for the buffer"
        self._place = place + length
        return self.base + place

    def poke(self, address: int, data: bytes) -> None:
        self.memory[address - self.base : address - self.base + len(data)] = data

    def peek(self, address: int, length: int) -> bytes:
        return bytes(self.memory[address - self.base : address - self.base + length])

    def add(self, readable: Sequence[bytes], writable: Sequence[int], *, indirect: bool = False) -> int:
        """Offer a chain of buffers with these contents and buffers of these sizes; returns its head."""
        rows: list[tuple[int, int, int]] = []
        for data in readable:
            address = self.allocate(len(data))
            self.poke(address, data)
            rows.append((address, len(data), 0))
        spaces = [(self.allocate(length), length) for length in writable]
        rows += [(address, length, WRITE) for address, length in spaces]
        return self.add_rows(rows, spaces, indirect=indirect)

    def add_rows(
        self, rows: Sequence[tuple[int, int, int]], spaces: list[tuple[int, int]], *, indirect: bool = False
    ) -> int:
        """Offer a chain of descriptors (address, length, flags)."""
        if indirect:
            table = self.allocate(16 * len(rows), 16)
            for index, (address, length, flags) in enumerate(rows):
                more = NEXT if index + 1 < len(rows) else 0
                self.poke(table + 16 * index, _DESCRIPTOR.pack(address, length, flags | more, index + 1))
            rows = [(table, 16 * len(rows), INDIRECT)]
        numbers = [self._free.pop() for _ in rows]
        for index, (number, (address, length, flags)) in enumerate(zip(numbers, rows, strict=True)):
            more = index + 1 < len(rows)
            following = numbers[index + 1] if more else 0
            self.descriptor(number, address, length, flags | (NEXT if more else 0), following)
        self.pending[numbers[0]] = Pending(numbers[0], numbers, spaces)
        self.offer(numbers[0])
        return numbers[0]

    def collect(self) -> list[tuple[int, bytes]]:
        """What the device gave back since the last time: heads, and what was written to each chain."""
        done = []
        (index,) = struct.unpack_from("<H", self.memory, self.used + 2)
        while self.seen != index:
            head, written = struct.unpack_from("<II", self.memory, self.used + 4 + 8 * (self.seen % self.size))
            self.seen = (self.seen + 1) & 0xFFFF
            pending = self.pending.pop(head)
            self._free += pending.descriptors
            data = b"".join(self.peek(*space) for space in pending.spaces)
            assert written <= len(data), "more written than there was room"
            done.append((head, data[:written]))
        return done

    @property
    def wants_kick(self) -> bool:
        """Whether the device asks for kicks."""
        return not self.memory[self.used] & 1

    def interrupts(self, wanted: bool) -> None:
        """Whether the driver asks for interrupts."""
        struct.pack_into("<H", self.memory, self.avail, 0 if wanted else 1)

    # Piece by piece ---------------------------------------------------------------------------

    def descriptor(self, number: int, address: int, length: int, flags: int, following: int = 0) -> None:
        _DESCRIPTOR.pack_into(self.memory, self.desc + 16 * number, address, length, flags, following)

    def offer(self, head: int) -> None:
        """Put `head` into the available ring."""
        struct.pack_into("<H", self.memory, self.avail + 4 + 2 * (self.offered % self.size), head)
        self.set_index(self.offered + 1)

    def set_index(self, index: int) -> None:
        """The available index, which may lie."""
        self.offered = index & 0xFFFF
        struct.pack_into("<H", self.memory, self.avail + 2, self.offered)
