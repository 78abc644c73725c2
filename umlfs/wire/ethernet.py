"""Ethernet frames (IEEE 802.3), as far as a switch looks at them: addresses, and the VLAN of a tag (802.1Q)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = 14
"""Bytes of both addresses and the type: what is shorter is no frame."""
TAG: Final = b"\x81\x00"
TAG_SIZE: Final = 4
VLAN_MAX: Final = 4094
BROADCAST: Final = b"\xff" * 6
ARP: Final = b"\x08\x06"
IPV4: Final = b"\x08\x00"
_TAG: Final = struct.Struct(">2sH")


class FrameError(ValueError):
    """Bytes that are no frame."""


class Header(NamedTuple):
    """What a switch goes by."""

    destination: bytes
    source: bytes
    vlan: int
    """0 for a frame without a tag."""

    @property
    def is_group(self) -> bool:
        """For several: broadcast or multicast."""
        return bool(self.destination[0] & 1)


def parse(frame: bytes | memoryview) -> Header:
    """The header of a frame. FrameError if it is cut short, or comes from a group, which no card does."""
    if len(frame) < HEADER:
        raise FrameError(f"{len(frame)} bytes are no frame")
    head = bytes(frame[: HEADER + TAG_SIZE])
    if head[6] & 1:
        raise FrameError("sent by a group")
    vlan = 0
    if head[12:14] == TAG:
        if len(head) < HEADER + TAG_SIZE:
            raise FrameError("a tag cut short")
        vlan = int.from_bytes(head[14:16], "big") & 0xFFF
    return Header(head[:6], head[6:12], vlan)


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame, which has no tag, with one."""
    return frame[:12] + _TAG.pack(TAG, vlan) + frame[12:]


def untagged(frame: bytes) -> bytes:
    """The frame without its tag."""
    return frame[:12] + frame[16:]


def mac_bytes(text: str) -> bytes:
    """`02:00:00:00:00:01` as bytes. ValueError."""
    data = bytes.fromhex(text.replace(":", ""))
    if len(data) != 6:
        raise ValueError(f"{text!r} is no MAC address")
    return data
