"""What a guest may send out, where it may not send everything: frames are looked at one by one, by their target."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UsageError
from umlfs.wire.ethernet import ARP, HEADER, IPV4
from umlfs.wire.unreachable import IPV6

_IPV4_SIZE: Final = 20
_IPV6_SIZE: Final = 40
_PLAIN: Final = 0x45
"""An IPv4 header without options: those could send a packet elsewhere."""
_NEIGHBOURS: Final = (ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("ff02::/16"))
"""What IPv6 needs to find its gateway."""

Address = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where frames may go."""

    networks: Sequence[Address]

    def lets_out(self, frame: bytes) -> bool:
        """Whether the frame, which a guest has sent, may go where it is to."""
        kind = frame[12:14]
        if kind == IPV4:
            return self._reaches(frame, HEADER + 16, 4, frame[HEADER : HEADER + 1] == bytes([_PLAIN]), _IPV4_SIZE)
        if kind == IPV6:
            return self._reaches(frame, HEADER + 24, 16, True, _IPV6_SIZE)
        return kind == ARP

    def _reaches(self, frame: bytes, place: int, size: int, is_plain: bool, header: int) -> bool:
        if not is_plain or len(frame) < HEADER + header:
            return False
        target = ipaddress.ip_address(frame[place : place + size])
        return any(target in network for network in self.networks if network.version == target.version)


def parse(word: str, text: str) -> list[str]:
    """The networks of `allow=CIDR,…`, as they are written down. UsageError."""
    try:
        return [str(ipaddress.ip_network(each)) for each in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--net {word}: allow={text}: {error}", "write it like allow=192.168.7.0/24,10.1.2.3"
        ) from None


def allowed(networks: Sequence[str], own: Sequence[str]) -> Allowed:
    """Those of a person, and what a guest cannot do without: its gateway, and whom it asks for names."""
    return Allowed([*map(ipaddress.ip_network, (*networks, *own)), *_NEIGHBOURS])
