"""The bitmap of a COW file in memory: which sectors it holds. No input or output.

Bit `n` is bit `n % 8` (the least significant first) of byte `n // 8`. Loaded piece by piece as it is needed: a
piece never touched takes no memory, so that opening is quick however large the device.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Final

CHUNK: Final = 64 * 1024
"""Bytes of bitmap loaded at a time: 256 MiB of device."""
PAGE: Final = 4096
"""Bytes of bitmap written at a time."""
_SCAN: Final = 4096
"""Bytes looked at in one go for the end of a run."""
_STEP: Final = PAGE * 8
"""Bits set in one go."""
_CLEAR: Final = b"\0"
_SET: Final = b"\xff"
_ALL_CLEAR: Final = _CLEAR * _SCAN
_ALL_SET: Final = _SET * _SCAN


class Bitmap:
    """`bits` bits, of which those behind the end of `length` bytes do not exist and read as clear."""

    def __init__(self, bits: int, length: int) -> None:
        self.bits = bits
        self.length = length
        # Zeroes that take no memory until they are written (shared memory would when it is read).
        self._map = mmap.mmap(-1, max(length, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._loaded = bytearray(-(-length // CHUNK))
        self._dirty: set[int] = set()
        """Numbers of the pages that differ from what is stored."""

    # Loading ----------------------------------------------------------------------------------

    def missing(self, first: int, end: int) -> list[int]:
        """The numbers of the chunks to load before the bits `[first, end)` may be used."""
        low, high = first // 8 // CHUNK, -(-end // (8 * CHUNK))
        return [] if self._loaded.find(0, low, high) < 0 else [n for n in range(low, high) if self.is_missing(n)]

    def is_missing(self, chunk: int) -> bool:
        """Whether a chunk is not loaded yet."""
        return chunk < len(self._loaded) and not self._loaded[chunk]

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """Offset and length of a chunk, in bytes of the stored bitmap."""
        return chunk * CHUNK, min(CHUNK, self.length - chunk * CHUNK)

    def load(self, chunk: int, data: bytes | bytearray) -> None:
        """Take what is stored for a chunk, unless it has been loaded meanwhile."""
        if not self.is_missing(chunk):
            return
        self._loaded[chunk] = 1
        if data != bytes(len(data)):  # a page of zeroes that is never written takes no memory
            start = chunk * CHUNK
            self._map[start : start + len(data)] = bytes(data)

    # Asking -----------------------------------------------------------------------------------

    def get(self, bit: int) -> bool:
        """Whether one bit is set."""
        byte = bit >> 3
        return byte < self.length and bool(self._map[byte] >> (bit & 7) & 1)

    def all_set(self, first: int, end: int) -> bool:
        """Whether all bits of a range are set."""
        if not (first | end) & 7:  # whole bytes, as nearly all requests
            low, high = first >> 3, end >> 3
            return high <= self.length and self._map[low:high] == _SET * (high - low)
        return self.run(first, end) == (True, end)

    def covers(self, offset: int, length: int) -> bool:
        """Whether a range of bytes of the device is made of whole groups of 8 sectors whose bits are all set.

        The quick answer for nearly all requests. Bits that are not loaded read as clear, so that a yes is
        always right.
        """
        if (offset | length) & 0xFFF:
            return False
        low, count = offset >> 12, length >> 12
        if count == 1:
            return low < self.length and self._map[low] == 0xFF
        return self._map[low : low + count] == _SET * count

    def run(self, first: int, end: int) -> tuple[bool, int]:
        """Whether bit `first` is set, and where in `(first, end]` the run of bits like it ends."""
        exist = self.length * 8
        if first >= exist:
            return False, end
        value = self.get(first)
        bit = first + self._alike(first, value)
        if not bit & 7 and bit < end:
            bit = self._skip_bytes(bit, end, value)
            if bit < min(end, exist):
                bit += self._alike(bit, value)
        if bit >= exist and not value:
            bit = end
        return value, min(bit, end)

    def _alike(self, bit: int, value: bool) -> int:
        """How many bits from `bit` on are like `value`, looking no further than the end of its byte."""
        byte = self._map[bit >> 3]
        different = (~byte & 0xFF if value else byte) >> (bit & 7)
        return (different & -different).bit_length() - 1 if different else 8 - (bit & 7)

    def _skip_bytes(self, bit: int, end: int, value: bool) -> int:
        """The first bit from `bit` (a multiple of 8) whose byte is not all like `value`, or at least `end`."""
        byte, last = bit >> 3, min(-(-end // 8), self.length)
        like, long = (_SET, _ALL_SET) if value else (_CLEAR, _ALL_CLEAR)
        while byte < last:
            piece = self._map[byte : min(byte + _SCAN, last)]
            same = _SCAN if piece == long else len(piece) - len(piece.lstrip(like))
            byte += same
            if same < len(piece):
                break
        return byte << 3

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cut `[first, end)` into (first, end, set), in order."""
        while first < end:
            value, stop = self.run(first, end)
            yield first, stop, value
            first = stop

    # Changing ---------------------------------------------------------------------------------

    def set(self, first: int, end: int) -> None:
        """Set the bits of a range, which must all exist. The pages that change are dirty from now on."""
        while first < end:
            stop = min(end, (first // _STEP + 1) * _STEP)
            if not self.all_set(first, stop):
                self._set(first, stop)
            first = stop

    def _set(self, first: int, end: int) -> None:
        low, high = first >> 3, -(-end // 8)
        content = int.from_bytes(self._map[low:high], "little")
        content |= ((1 << (end - first)) - 1) << (first & 7)
        self._map[low:high] = content.to_bytes(high - low, "little")
        self._dirty.update(range(low // PAGE, -(-high // PAGE)))

    def take_dirty(self) -> dict[int, bytes]:
        """Copies of all dirty ranges by their offset in the stored bitmap; from now on they count as clean."""
        pages = sorted(self._dirty)
        self._dirty = set()
        return {
            start * PAGE: self._map[start * PAGE : min((start + count) * PAGE, self.length)]
            for start, count in _consecutive(pages)
        }

    def put_back(self, ranges: dict[int, bytes]) -> None:
        """Those ranges could not be stored: they are dirty still."""
        for offset, content in ranges.items():
            self._dirty.update(range(offset // PAGE, -(-(offset + len(content)) // PAGE)))

    @property
    def dirty(self) -> bool:
        """Whether anything is to be stored."""
        return bool(self._dirty)

    def close(self) -> None:
        """Give back the memory."""
        self._map.close()


def _consecutive(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers in an ascending sequence, as (first, how many)."""
    first, count = 0, 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count
