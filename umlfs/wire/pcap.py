"""Captures in the classic format of libpcap, which tcpdump and Wireshark read (pcap-savefile(5))."""

from __future__ import annotations

import struct
from typing import Final

SNAPSHOT: Final = 262144
"""Bytes of a frame that are kept at most."""
_ETHERNET: Final = 1
_HEADER: Final = struct.Struct("=IHHiIII")
_RECORD: Final = struct.Struct("=IIII")
_NANOSECONDS: Final = 0xA1B23C4D
"""The magic number that says that times are in nanoseconds, in the order of this machine's bytes."""


def header() -> bytes:
    """The beginning of a file."""
    return _HEADER.pack(_NANOSECONDS, 2, 4, 0, 0, SNAPSHOT, _ETHERNET)


def record(nanoseconds: int, frame: bytes) -> bytes:
    """One frame, at a time since 1970."""
    kept = frame[:SNAPSHOT]
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return _RECORD.pack(seconds & 0xFFFFFFFF, rest, len(kept), len(frame)) + kept
