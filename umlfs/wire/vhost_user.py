"""The vhost-user protocol as bytes and messages. No sockets.

Defined in QEMU's `docs/interop/vhost-user`; what the UML kernel's front end sends is in
`arch/um/drivers/vhost_user.h` and `virtio_uml.c`. All integers are little-endian.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("<III")
"""Request, flags, size of the payload."""
VERSION: Final = 1
VERSION_MASK: Final = 3
FLAG_REPLY: Final = 4
FLAG_NEED_REPLY: Final = 8

PAYLOAD_MAX: Final = 4096
"""The largest message of the UML kernel is a GET_CONFIG of a few hundred bytes, of QEMU a memory
table of 328; more is a broken or hostile front end."""
DESCRIPTORS_MAX: Final = 8
"""Descriptors with one message: one for each memory region."""

F_PROTOCOL_FEATURES: Final = 1 << 30
PROTOCOL_REPLY_ACK: Final = 1 << 3
PROTOCOL_BACKEND_REQUEST: Final = 1 << 5
PROTOCOL_CONFIG: Final = 1 << 9
PROTOCOL_FEATURES: Final = PROTOCOL_REPLY_ACK | PROTOCOL_BACKEND_REQUEST | PROTOCOL_CONFIG
"""What the back end offers."""

BACKEND_CONFIG_CHANGE: Final = 2
"""The request on the back end's own channel that tells of a changed configuration space."""


class Request(enum.IntEnum):
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25


class ProtocolError(Exception):
    """The front end sent what the protocol does not allow; the connection must be closed."""


@dataclass(slots=True)
class Message:
    """One message from the front end, with the descriptors that came along (now the receiver's to close)."""

    request: int
    flags: int
    payload: bytes
    descriptors: list[int] = field(default_factory=list)

    @property
    def needs_reply(self) -> bool:
        return bool(self.flags & FLAG_NEED_REPLY)

    def u64(self) -> int:
        """The payload as one 64-bit number. ProtocolError if it is none."""
        (value,) = self._unpack(_U64)
        return int(value)

    def vring_state(self) -> tuple[int, int]:
        """The payload as (queue index, number)."""
        index, number = self._unpack(_VRING_STATE)
        return index, number

    def vring_addresses(self) -> tuple[int, int, int, int]:
        """The payload as (queue index, descriptors, used ring, available ring): the front end's addresses."""
        index, _flags, descriptors, used, available, _log = self._unpack(_VRING_ADDRESSES)
        return index, descriptors, used, available

    def vring_descriptor(self) -> tuple[int, bool]:
        """The payload of SET_VRING_KICK and its like: (queue index, whether a descriptor comes along)."""
        value = self.u64()
        expected = 0 if value & VRING_NO_DESCRIPTOR else 1
        if len(self.descriptors) != expected:
            raise ProtocolError(f"request {self.request} with {len(self.descriptors)} descriptors, not {expected}")
        return value & VRING_INDEX_MASK, bool(expected)

    def memory_regions(self) -> list[MemoryRegion]:
        """The payload as a memory table; region i is the descriptor i."""
        if len(self.payload) < 8:
            raise ProtocolError("a memory table without a count")
        (count,) = struct.unpack_from("<I", self.payload)
        if not 0 < count <= DESCRIPTORS_MAX or len(self.payload) < 8 + count * _REGION.size:
            raise ProtocolError(f"a memory table of {count} regions in {len(self.payload)} bytes")
        if len(self.descriptors) != count:
            raise ProtocolError(f"{count} memory regions with {len(self.descriptors)} descriptors")
        return [MemoryRegion(*_REGION.unpack_from(self.payload, 8 + i * _REGION.size)) for i in range(count)]

    def config_window(self) -> tuple[int, int, bytes]:
        """The payload as a piece of configuration space: (offset, size, bytes)."""
        if len(self.payload) < _CONFIG.size:
            raise ProtocolError("a configuration request cut short")
        offset, size, _flags = _CONFIG.unpack_from(self.payload)
        data = self.payload[_CONFIG.size :]
        if len(data) != size:
            raise ProtocolError(f"a configuration request for {size} bytes with {len(data)}")
        return offset, size, data

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        if len(self.payload) != layout.size:
            raise ProtocolError(f"request {self.request} with {len(self.payload)} bytes, not {layout.size}")
        return layout.unpack(self.payload)


class MemoryRegion(NamedTuple):
    """A row of the memory table, in bytes."""

    guest_address: int
    size: int
    user_address: int
    mmap_offset: int


_U64: Final = struct.Struct("<Q")
_VRING_STATE: Final = struct.Struct("<II")
_VRING_ADDRESSES: Final = struct.Struct("<IIQQQQ")
_REGION: Final = struct.Struct("<QQQQ")
_CONFIG: Final = struct.Struct("<III")

VRING_INDEX_MASK: Final = 0xFF
"""SET_VRING_KICK and SET_VRING_CALL: the queue's index."""
VRING_NO_DESCRIPTOR: Final = 0x100
"""SET_VRING_KICK and SET_VRING_CALL: no descriptor comes along."""


class Decoder:
    """Bytes of the front end's stream to messages.

    Feed it at most `needed` bytes at a time: then descriptors that arrive with them belong to the
    message being read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    @property
    def needed(self) -> int:
        """How many bytes the message being read still lacks; never 0."""
        if len(self._buffer) < HEADER.size:
            return HEADER.size - len(self._buffer)
        return HEADER.size + self._payload_size() - len(self._buffer)

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> Message | None:
        """The message that `data` completes, if it does. ProtocolError for what cannot be one.

        The descriptors are the decoder's from here on, whatever happens; see `abandon`.
        """
        self._descriptors += descriptors
        if len(data) > self.needed:
            raise ValueError(f"{len(data)} bytes of a message that lacks {self.needed}")
        if len(self._descriptors) > DESCRIPTORS_MAX:
            raise ProtocolError(f"{len(self._descriptors)} descriptors with one message")
        self._buffer += data
        if len(self._buffer) < HEADER.size:
            return None
        request, flags, size = HEADER.unpack_from(self._buffer)
        if flags & VERSION_MASK != VERSION:
            raise ProtocolError(f"protocol version {flags & VERSION_MASK}")
        if flags & FLAG_REPLY:
            raise ProtocolError(f"a reply to {request}, which was never asked")
        if size > PAYLOAD_MAX:
            raise ProtocolError(f"a message of {size} bytes")
        if self.needed:
            return None
        message = Message(request, flags, bytes(self._buffer[HEADER.size :]), self._descriptors)
        self._buffer = bytearray()
        self._descriptors = []
        return message

    def abandon(self) -> list[int]:
        """The descriptors of a message that will never be whole; the caller closes them."""
        left, self._descriptors = self._descriptors, []
        return left

    def _payload_size(self) -> int:
        size: int = HEADER.unpack_from(self._buffer)[2]
        return size


def reply(request: int, payload: bytes) -> bytes:
    """The answer to `request`."""
    return HEADER.pack(request, VERSION | FLAG_REPLY, len(payload)) + payload


def reply_u64(request: int, value: int) -> bytes:
    """The answer to `request`: one number. As an acknowledgement 0 is success."""
    return reply(request, _U64.pack(value))


def reply_config(request: int, offset: int, data: bytes) -> bytes:
    """The answer to GET_CONFIG: exactly as many bytes as were asked for."""
    return reply(request, _CONFIG.pack(offset, len(data), 0) + data)


def reply_vring_state(request: int, index: int, number: int) -> bytes:
    """The answer to GET_VRING_BASE."""
    return reply(request, _VRING_STATE.pack(index, number))


def config_changed() -> bytes:
    """What the back end sends on its own channel when its configuration space changed."""
    return HEADER.pack(BACKEND_CONFIG_CHANGE, VERSION, 0)
