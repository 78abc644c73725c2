"""The management console's protocol, version 2: requests, replies, notifications. No input or output.

As the 6.1 kernel (arch/um/drivers/mconsole_kern.c, mconsole_user.c) and uml_mconsole speak it, in datagrams. Integers
are 32 bits in the machine's own order. Messages are tuples: dataclasses take longer to load than most requests take.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Final, NamedTuple

MAGIC: Final = 0xCAFEBABE
VERSION: Final = 2

TEXT_MAX: Final = 511
"""The most bytes of a request's text: the kernel's buffer of 512 has a NUL behind it."""

PIECE_MAX: Final = 511
"""The most bytes of text in one reply datagram, for the same reason."""

REPLY_MAX: Final = 4 << 20
"""The most bytes that all pieces of a reply may have together: the longest file of a guest's /proc (kallsyms) has
somewhat over 1 MiB."""

_PIECE_COST: Final = 64
"""What a piece counts beside its text: a reply in empty pieces ends some time, too."""

NOTIFICATION_MAX: Final = 512
"""The most bytes of data in a notification."""

DATAGRAM_MAX: Final = 4096
"""Room for any datagram of the protocol; what is longer is none."""

NOT_VERSION_2: Final = b"ERR Version 0 mconsole clients are not supported by this driver"
"""The answer to what does not begin with the magic number. It is no reply structure, so that old clients see it."""

_HEAD: Final = struct.Struct("=III")
_REPLY: Final = struct.Struct("=iII")
_PADDED: Final = struct.Struct(f"=III{TEXT_MAX + 1}s")
_NOTIFICATION: Final = struct.Struct("=IIII")

HANG_SIZE: Final = 24
"""The size of what uml_watchdog sends: its structure begins with the magic number in 64 bits."""
_HANG_HEAD: Final = struct.pack("=Q", MAGIC)


class Malformed(Exception):
    """A datagram that makes no sense."""


class Refused(Exception):
    """A request that is answered by `datagram`, and not done."""

    def __init__(self, datagram: bytes) -> None:
        super().__init__(datagram)
        self.datagram = datagram


class Reply(NamedTuple):
    """What a request is answered."""

    err: int = 0
    """0 if all is well, 1 or a negative errno if not."""
    text: str = ""
    """Bytes that are no UTF-8 are surrogates, as in names of files (PEP 383)."""


def text_of(data: bytes) -> str:
    """Bytes off the wire as text, up to the first NUL."""
    return data.partition(b"\0")[0].decode(errors="surrogateescape")


def bytes_of(text: str) -> bytes:
    """Text as bytes for the wire; the inverse of `text_of`, and without NULs."""
    return text.replace("\0", "").encode(errors="surrogateescape")


# Requests ---------------------------------------------------------------------------------


def encode_request(text: str) -> bytes:
    """A request, of 524 bytes as the historical client sends it. ValueError for more than TEXT_MAX bytes."""
    data = bytes_of(text)
    if len(data) > TEXT_MAX:
        raise ValueError(f"{len(data)} bytes of request, at most {TEXT_MAX} fit")
    return _PADDED.pack(MAGIC, VERSION, len(data), data)


def decode_request(datagram: bytes) -> str:
    """The text of a request, which may be padded or not. Refused with what to answer for one that is none."""
    if len(datagram) < _HEAD.size:
        raise Refused(NOT_VERSION_2)
    magic, version, length = _HEAD.unpack_from(datagram)
    if magic != MAGIC:
        raise Refused(NOT_VERSION_2)
    if length > TEXT_MAX:
        raise Refused(encode_piece(1, False, b"Request too large"))
    if version != VERSION:
        raise Refused(encode_piece(1, False, b"This driver only supports version 2 clients"))
    if length > len(datagram) - _HEAD.size:
        raise Refused(encode_piece(1, False, b"Request too short"))
    return text_of(datagram[_HEAD.size : _HEAD.size + length])


# Replies ----------------------------------------------------------------------------------


def encode_piece(err: int, more: bool, text: bytes) -> bytes:
    """One datagram of a reply; `text` has at most PIECE_MAX bytes and no NUL."""
    return _REPLY.pack(err, more, len(text) + 1) + text + b"\0"


def encode_reply(reply: Reply) -> list[bytes]:
    """The datagrams of a reply; `err` is in the first."""
    data = bytes_of(reply.text)
    starts = range(0, max(len(data), 1), PIECE_MAX)
    last = starts[-1]
    pieces = (data[start : start + PIECE_MAX] for start in starts)
    return [
        encode_piece(0 if start else reply.err, start != last, piece)
        for start, piece in zip(starts, pieces, strict=True)
    ]


class Piece(NamedTuple):
    """One datagram of a reply."""

    err: int
    more: bool
    """Another one follows."""
    text: bytes


def decode_piece(datagram: bytes) -> Piece:
    """One datagram of a reply; the bare text of NOT_VERSION_2 is an error's. Malformed."""
    if len(datagram) >= _REPLY.size:
        err, more, length = _REPLY.unpack_from(datagram)
        if length <= len(datagram) - _REPLY.size:
            return Piece(err, bool(more), datagram[_REPLY.size : _REPLY.size + length].partition(b"\0")[0])
    if datagram == NOT_VERSION_2:
        return Piece(1, False, datagram.removeprefix(b"ERR "))
    raise Malformed(f"a reply of {len(datagram)} bytes that is none")


class Assembly:
    """Puts the pieces of one reply together."""

    def __init__(self) -> None:
        self._err = 0
        self._data = bytearray()
        self._pieces = 0

    def feed(self, datagram: bytes) -> Reply | None:
        """Take the next datagram: the whole reply, or None if more is to come. Malformed, also for one too long."""
        piece = decode_piece(datagram)
        self._err = self._err or piece.err
        self._data += piece.text
        self._pieces += 1
        if len(self._data) + self._pieces * _PIECE_COST > REPLY_MAX:
            raise Malformed(f"a reply of more than {REPLY_MAX >> 20} MiB")
        return None if piece.more else Reply(self._err, self.text)

    @property
    def text(self) -> str:
        """What there is so far."""
        return text_of(bytes(self._data))


# Notifications ----------------------------------------------------------------------------


class NoticeKind(StrEnum):
    """What happened to a machine."""

    BOOT = "boot"
    """Its console is ready; the text is the path of that socket."""
    PANIC = "panic"
    """The text is the kernel's last word."""
    HANG = "hang"
    """The guest has not fed its watchdog; or the kernel does not answer, which our own processes tell."""
    USER = "user"
    """Somebody in the guest wrote the text to /proc/mconsole."""
    RECOVERED = "recovered"
    """A kernel that did not answer does so again."""
    REBOOT = "reboot"
    EXIT = "exit"
    """The kernel has ended; the text says how."""
    NETWORK = "network"
    """What befell its network, such as an engine that died and was started again. These four are
    never on the wire: our own processes tell of them."""


_WIRE: Final = (NoticeKind.BOOT, NoticeKind.PANIC, NoticeKind.HANG, NoticeKind.USER)
"""The kinds by their numbers on the wire."""


class Notification(NamedTuple):
    """What a machine tells of itself."""

    kind: NoticeKind
    text: str = ""
    """Always text that can be encoded: bytes of a guest that are no UTF-8 are written as \\xNN."""


def encode_notification(kind: NoticeKind, data: bytes = b"") -> bytes:
    """A notification as the kernel sends it; `data` goes as it is. ValueError for too much, and for a kind of ours."""
    if len(data) > NOTIFICATION_MAX:
        raise ValueError(f"{len(data)} bytes of notification, at most {NOTIFICATION_MAX} fit")
    return _NOTIFICATION.pack(MAGIC, VERSION, _WIRE.index(kind), len(data)) + data


def encode_hang() -> bytes:
    """What uml_watchdog sends when its time is over."""
    return _HANG_HEAD + struct.pack("=IIII", VERSION, _WIRE.index(NoticeKind.HANG), 0, 0)


def decode_notification(datagram: bytes) -> Notification:
    """A notification of the kernel or of uml_watchdog. Malformed."""
    if len(datagram) == HANG_SIZE and datagram.startswith(_HANG_HEAD):
        return Notification(NoticeKind.HANG)
    if len(datagram) < _NOTIFICATION.size:
        raise Malformed(f"a notification of {len(datagram)} bytes")
    magic, version, number, length = _NOTIFICATION.unpack_from(datagram)
    data = datagram[_NOTIFICATION.size :]
    if magic != MAGIC or version != VERSION or number >= len(_WIRE) or length > min(len(data), NOTIFICATION_MAX):
        raise Malformed(f"a notification of version {version}, type {number} and length {length}")
    data = data[:length]
    if _WIRE[number] is not NoticeKind.USER:
        data = data.partition(b"\0")[0]
    return Notification(_WIRE[number], data.decode(errors="backslashreplace"))
