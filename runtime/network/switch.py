"""A learning Ethernet switch: ports, the addresses behind them, VLANs, and what a link may be made to suffer.

Nothing here knows where frames come from: a port gives them to `Switch.forward`, and takes them by its `send`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from umlfs.wire.ethernet import ARP, HEADER, IPV4, FrameError, parse, tagged, untagged

LIFETIME_SECONDS: Final = 100.0
"""After which an address that was not heard of is forgotten, as by uml_switch."""
ADDRESSES_MAX: Final = 8192
"""Learned at most: a flood of made-up ones must not take the memory."""
FRAME_MAX: Final = 9216
"""Bytes of a frame: an MTU of 9000 with all headers. A larger one is dropped."""

Send = Callable[[bytes], bool]
"""Takes a frame, at once or later; whether there was room for it."""


@dataclass(slots=True)
class Counts:
    """What a port has done."""

    received: int = 0
    sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    dropped: int = 0
    """For which there was no room, or that an impairment lost."""
    refused: int = 0
    """No frames, or with addresses that are another's."""


@dataclass(slots=True, eq=False)
class Port:
    """A place where a cable goes in."""

    name: str
    send: Send
    mac: bytes = b""
    """The card's own address; empty for a port where anyone may be."""
    address: bytes = b""
    """Its IPv4 address, likewise."""
    vlan: int = 0
    """Frames go out without a tag and come in as this VLAN's; 0 for a port that carries them as they are."""
    uplink: bool = False
    """The way out of an isolated network."""
    plugged: bool = True
    counts: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class Switch:
    """All ports. `forward` does not wait."""

    hub: bool = False
    """Every frame goes to every port."""
    isolated: bool = False
    """Ports reach the uplinks alone, and say nothing in another's name."""
    ports: list[Port] = field(default_factory=list)
    elsewhere: set[bytes] = field(default_factory=set)
    """Addresses of cards that are behind a port which is no card's: no other port says anything in their names."""
    watchers: list[Callable[[bytes], None]] = field(default_factory=list)
    """They get a copy of each frame that is forwarded."""
    clock: Callable[[], float] = time.monotonic
    _learned: dict[tuple[int, bytes], tuple[Port, float]] = field(default_factory=dict)

    def add(self, port: Port) -> None:
        """A cable is plugged in."""
        self.ports.append(port)

    def remove(self, port: Port) -> None:
        """A port is gone."""
        if port in self.ports:
            self.ports.remove(port)
            self._learned = {key: value for key, value in self._learned.items() if value[0] is not port}

    def forward(self, port: Port, frame: bytes) -> None:
        """A frame came in at `port`."""
        counts = port.counts
        try:
            header = parse(frame)
        except FrameError:
            counts.refused += 1
            return
        if len(frame) > FRAME_MAX or (port.mac and not self._may_say(port, header.source, frame)):
            counts.refused += 1
            return
        counts.received += 1
        counts.bytes_received += len(frame)
        if not port.plugged:
            counts.dropped += 1
            return
        vlan = port.vlan or header.vlan
        if port.vlan and header.vlan:
            counts.refused += 1
            return
        for watch in self.watchers:
            watch(frame)
        self._learn(vlan, header.source, port)
        known = None if self.hub or header.destination[0] & 1 else self._known(vlan, header.destination)
        if known is not None:
            if known is not port:
                self._send(port, known, vlan, header.vlan, frame)
            return
        for other in self.ports:
            if other is not port:
                self._send(port, other, vlan, header.vlan, frame)

    def _send(self, source: Port, target: Port, vlan: int, tag: int, frame: bytes) -> None:
        if self.isolated and not (source.uplink or target.uplink):
            return
        if target.vlan and target.vlan != vlan:
            return
        if not target.plugged:
            target.counts.dropped += 1
            return
        if target.vlan and tag:
            frame = untagged(frame)
        elif not target.vlan and source.vlan:
            frame = tagged(frame, vlan)
        self.deliver(target, frame)

    @staticmethod
    def deliver(target: Port, frame: bytes) -> None:
        """Hand a frame to a port."""
        if target.send(frame):
            target.counts.sent += 1
            target.counts.bytes_sent += len(frame)
        else:
            target.counts.dropped += 1

    # Addresses --------------------------------------------------------------------------------

    def _learn(self, vlan: int, address: bytes, port: Port) -> None:
        key = vlan, address
        if key not in self._learned and len(self._learned) >= ADDRESSES_MAX:
            self._forget()
            if len(self._learned) >= ADDRESSES_MAX:
                return
        self._learned[key] = port, self.clock() + LIFETIME_SECONDS

    def _known(self, vlan: int, address: bytes) -> Port | None:
        found = self._learned.get((vlan, address))
        if found is None or found[1] < self.clock():
            return None
        return found[0]

    def _forget(self) -> None:
        now = self.clock()
        self._learned = {key: value for key, value in self._learned.items() if value[1] >= now}

    def _may_say(self, port: Port, source: bytes, frame: bytes) -> bool:
        """Whether what comes from a card is in its own name: nobody takes a neighbour's address, and in an isolated
        network nobody has any other than the one given."""
        if source == port.mac:
            return not self.isolated or _speaks_for(port, frame)
        taken = source in self.elsewhere or any(source == other.mac for other in self.ports)
        return not self.isolated and not taken


def _speaks_for(port: Port, frame: bytes) -> bool:
    kind = frame[12:14]
    if kind == IPV4:
        return frame[HEADER + 12 : HEADER + 16] in (port.address, bytes(4))
    if kind == ARP:
        return frame[HEADER + 8 : HEADER + 14] == port.mac and frame[HEADER + 14 : HEADER + 18] in (
            port.address,
            bytes(4),
        )
    return True


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a link suffers, in each direction."""

    delay: float = 0.0
    """Seconds."""
    loss: float = 0.0
    """The part of all frames that is lost: 0.01 for one of a hundred."""
    rate: float = 0.0
    """Bits a second; 0 for as many as there are."""

    def __bool__(self) -> bool:
        return bool(self.delay or self.loss or self.rate)

    def loses(self) -> bool:
        """Whether the next frame is lost."""
        return bool(self.loss) and random.random() < self.loss
