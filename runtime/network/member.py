"""A machine's card on a network between machines."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from runtime.guest.network import Card
from runtime.network import lab as labs
from runtime.network.contract import Gear, Place
from runtime.network.published import Published
from runtime.network.switch import Impairment
from umlfs.errors import UmlError


@dataclass(frozen=True, slots=True)
class Member:
    """A place on a network between machines."""

    name: str
    """The network's."""
    mac: str = ""
    ip: str = ""
    vlan: int = 0
    impairment: Impairment = field(default_factory=Impairment)

    @property
    def described(self) -> str:
        """See `Network`."""
        more = [f"mac={self.mac}"] * bool(self.mac) + [f"ip={self.ip}"] * bool(self.ip)
        return " ".join([f"network {self.name}", *more, *([f"vlan={self.vlan}"] if self.vlan else [])])

    @property
    def remark(self) -> str:
        """See `Network`."""
        return ""

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[MemberAttachment]:
        """See `Network`."""
        path, _ = labs.find(self.name)
        with await trio.to_thread.run_sync(labs.join, path) as connection:
            it = self.impairment
            hello = {
                "do": "attach",
                "name": place.name,
                "mac": self.mac or place.mac,
                "ip": self.ip,
                "vlan": self.vlan,
                "impairment": [it.delay, it.loss, it.rate],
            }
            given = await trio.to_thread.run_sync(labs.request, connection, hello)
            connection.setblocking(False)
            yield MemberAttachment(self, place, connection, given)


@dataclass(slots=True)
class MemberAttachment:
    """One card: the kernel gets the very socket that the switch is at the other end of."""

    network: Member
    place: Place
    connection: socket.socket
    given: dict[str, Any]

    @property
    def publishes(self) -> bool:
        return False

    @property
    def gear(self) -> Gear:
        unit, fd = self.place.unit, self.connection.fileno()
        mac = self.network.mac or self.place.mac
        gateway = self.given["gateway"]
        return Gear(
            Card(f"vec{unit}", f"eth{unit}", [self.given["address"]], [gateway] if gateway else []),
            arguments=[f"vec{unit}:transport=fd,fd={fd},mtu={self.given['mtu']},mac={mac}"],
            descriptors=[fd],
            servers=[self.given["server"]],
            search=[self.network.name],
        )

    async def ready(self) -> None:
        """See `Attachment`."""

    async def settled(self) -> None:
        """See `Attachment`."""

    async def publish(self, published: Published) -> None:
        """See `Attachment`."""
        raise UmlError(f"network {self.network.name} publishes no ports", "use uml forward, or give it --net user too")

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """See `Attachment`."""
        return False

    @property
    def published(self) -> Sequence[Published]:
        return ()
