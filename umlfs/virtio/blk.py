"""A virtio-blk device: block requests in descriptor chains.

Defined in the Virtio specification 1.2, section 5.2 (block device). A request is a header of 16 bytes, then data,
then one byte of status that the device writes. Sectors are of 512 bytes whatever the block size.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import struct
from collections.abc import Callable
from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks.padded import Padded
from umlfs.blocks.raw import check_range
from umlfs.buffers import part, scatter, total
from umlfs.errors import UsageError
from umlfs.statistics import Statistics
from umlfs.virtio.device import unheard
from umlfs.virtio.virtqueue import Chain

log = logging.getLogger(__name__)

DEVICE_ID: Final = 2
SECTOR: Final = 512
SERIAL_MAX: Final = 20
"""Bytes of the serial number that a guest can read."""
SEGMENTS: Final = 254
"""Pieces of memory in one request: the ring of 256, less the header and the status."""
UNMAP_SECTORS: Final = 1 << 22
"""The most that one discard or write of zeroes may cover: 2 GiB, so that none takes for ever."""
UNMAP_SEGMENTS: Final = 16
UNMAP_STEP: Final = 256 << 20
"""Bytes erased at a time: between two such steps a request can be given up."""
GUEST_S_FAULT: Final = frozenset({errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP, errno.ENOSYS})
"""What says nothing of the host: not worth a line in its log, which a guest could fill."""
PHYSICAL_EXPONENT: Final = 3
"""log2 of physical over logical block size: 4 KiB, what a COW file copies up at a time."""

_F_SEG_MAX: Final = 1 << 2
_F_RO: Final = 1 << 5
_F_BLK_SIZE: Final = 1 << 6
_F_FLUSH: Final = 1 << 9
_F_TOPOLOGY: Final = 1 << 10
_F_DISCARD: Final = 1 << 13
_F_WRITE_ZEROES: Final = 1 << 14

_CONFIG: Final = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")
_HEADER: Final = struct.Struct("<IIQ")
_RANGE: Final = struct.Struct("<QII")
_RANGE_UNMAP: Final = 1


class RequestKind(enum.IntEnum):
    READ = 0
    WRITE = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class Status(enum.IntEnum):
    OK = 0
    ERROR = 1
    UNSUPPORTED = 2


def features(*, read_only: bool, unmap: bool) -> int:
    """The feature bits of a disk; `unmap` for one that takes discard and writing of zeroes."""
    found = _F_SEG_MAX | _F_BLK_SIZE | _F_FLUSH | _F_TOPOLOGY
    if read_only:
        found |= _F_RO
    if unmap:
        found |= _F_DISCARD | _F_WRITE_ZEROES
    return found


def configuration(size: int, *, unmap: bool) -> bytes:
    """The configuration space of a disk of `size` bytes, whole sectors."""
    limits = (UNMAP_SECTORS, UNMAP_SEGMENTS) if unmap else (0, 0)
    alignment = 1 << PHYSICAL_EXPONENT
    return _CONFIG.pack(
        size // SECTOR,
        0,  # size_max
        SEGMENTS,
        *(0, 0, 0),  # geometry
        SECTOR,
        *(PHYSICAL_EXPONENT, 0, alignment, 0),  # topology: exponent, alignment, least and best I/O size in blocks
        *(0, 0),  # write-back switch, unused
        0,  # queues
        *limits,
        alignment if unmap else 0,
        *limits,
        1,  # writing zeroes may unmap
    )


class VirtioBlk:
    """A `VirtioDevice` that serves `device`; one of odd size appears rounded up to whole sectors (see `Padded`)."""

    queues = 1

    def __init__(
        self, device: BlockDevice, *, serial: str = "", read_only: bool = False, discard: bool = True, name: str = ""
    ) -> None:
        """`serial` is what the guest finds in /sys/block/*/serial, at most 20 bytes; UsageError if it is longer.
        With `read_only`, or where the device is, every change is refused here, whatever the guest believes. Without
        `discard` the guest is offered neither discard nor writing of zeroes."""
        self._serial = serial.encode(errors="surrogateescape")
        if len(self._serial) > SERIAL_MAX:
            raise UsageError(f"the serial number '{serial}' is longer than {SERIAL_MAX} bytes", "choose a shorter one")
        self.name = f"virtio-blk {name or serial}".rstrip()
        self.device = Padded(device)
        self.read_only = read_only or device.read_only
        self.statistics = Statistics()
        self.on_config_change: Callable[[], None] = unheard
        self._told: set[int] = set()
        """The errnos that were logged: each is, once."""
        self.discards = discard and device.can_discard and not self.read_only
        """It takes discard and writing of zeroes."""
        self.features = features(read_only=self.read_only, unmap=self.discards)

    at_once = None

    def config(self) -> bytes:
        return configuration(self.device.size, unmap=self.discards)

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing can be set: the switch of the cache is not offered."""

    def reset(self) -> None:
        pass

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def handle(self, queue: int, chain: Chain) -> int:
        """Do one request; the bytes written include the status. A chain without room for a status gets none."""
        answer = chain.writable
        if not answer:
            return 0
        last = answer[-1]
        if len(last) == 1:
            status_byte, room = last, answer[:-1]
        else:
            status_byte, room = last[-1:], [*answer[:-1], last[:-1]]
        try:
            written = await self._request(chain.readable, room)
        except OSError as error:
            written, status_byte[0] = 0, self._status(error)
        except Exception:
            log.exception("%s: request failed", self.name)
            written, status_byte[0] = 0, Status.ERROR
        else:
            status_byte[0] = Status.OK
        return written + 1

    def _status(self, error: OSError) -> Status:
        """What a guest can be told of an error; what it cannot (that the host's disk is full) goes to the log."""
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return Status.UNSUPPORTED
        number = error.errno or 0
        if number not in GUEST_S_FAULT and number not in self._told:
            self._told.add(number)
            log.error("%s: the guest's request fails: %s", self.name, error.strerror or error)
        return Status.ERROR

    async def _request(self, request: list[memoryview], room: list[memoryview]) -> int:
        """Returns the bytes written to `room`. OSError: EOPNOTSUPP for what is not offered, EINVAL for nonsense."""
        kind, sector, data = _split(request)
        offset = sector * SECTOR
        if kind == RequestKind.READ:
            length = _whole_sectors(room)
            await self.device.read_into(offset, room)
            self.statistics.read_bytes += length
            return length
        if kind == RequestKind.GET_ID:
            return self._write_serial(room)
        if kind == RequestKind.FLUSH:
            if not self.read_only:
                await self.device.flush()
            return 0
        if kind not in (RequestKind.WRITE, RequestKind.DISCARD, RequestKind.WRITE_ZEROES):
            raise OSError(errno.EOPNOTSUPP, f"request type {kind}")
        if self.read_only:
            raise OSError(errno.EROFS, "read-only")
        if kind == RequestKind.WRITE:
            length = _whole_sectors(data)
            await self.device.write_from(offset, data)
            self.statistics.written_bytes += length
        else:
            await self._erase(kind, data)
        return 0

    async def _erase(self, kind: int, data: list[memoryview]) -> None:
        if not self.discards:
            raise OSError(errno.EOPNOTSUPP, "discard was not offered")
        length = total(data)
        if not length or length % _RANGE.size or length > UNMAP_SEGMENTS * _RANGE.size:
            raise OSError(errno.EINVAL, f"ranges in {length} bytes")
        for sector, count, flags in list(_RANGE.iter_unpack(b"".join(data))):
            if count > UNMAP_SECTORS:
                raise OSError(errno.EINVAL, f"{count} sectors at once")
            offset, end = sector * SECTOR, (sector + count) * SECTOR
            check_range(self.device, offset, end - offset)
            while offset < end:
                step = min(UNMAP_STEP, end - offset)
                if kind == RequestKind.DISCARD:
                    await self.device.discard(offset, step)
                else:
                    await self.device.write_zeroes(offset, step, bool(flags & _RANGE_UNMAP))
                offset += step

    def _write_serial(self, room: list[memoryview]) -> int:
        if total(room) < SERIAL_MAX:
            raise OSError(errno.EINVAL, "no room for the serial number")
        return scatter(self._serial.ljust(SERIAL_MAX, b"\0"), room)


def _whole_sectors(buffers: list[memoryview]) -> int:
    """The bytes in `buffers`; EINVAL unless they make up whole sectors."""
    length = total(buffers)
    if length % SECTOR:
        raise OSError(errno.EINVAL, f"{length} bytes are not whole sectors")
    return length


def _split(request: list[memoryview]) -> tuple[int, int, list[memoryview]]:
    """A request's type and sector, and the data that follows. A guest may cut it wherever it likes."""
    if request and len(request[0]) == _HEADER.size:
        kind, _priority, sector = _HEADER.unpack_from(request[0])
        return kind, sector, request[1:]
    # Only the header is copied: the pieces behind it may be the same memory many times over.
    header = b"".join(part(request, 0, _HEADER.size))
    if len(header) < _HEADER.size:
        raise OSError(errno.EINVAL, f"a request of {len(header)} bytes")
    kind, _priority, sector = _HEADER.unpack(header)
    return kind, sector, part(request, _HEADER.size, total(request) - _HEADER.size)
