"""A machine's card on a network between machines."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from runtime.guest.network import Card
from runtime.network import lab as labs
from runtime.network import session
from runtime.network.bridge import CARD, TUN
from runtime.network.contract import Gear, Knows, Place
from runtime.network.published import Published
from runtime.network.session import NetworkSession
from runtime.network.switch import Impairment


@dataclass(frozen=True, slots=True)
class Member:
    """A place on a network between machines."""

    name: str
    """The network's."""
    mac: str = ""
    ip: str = ""
    vlan: int = 0
    impairment: Impairment = field(default_factory=Impairment)
    published: Sequence[Published] = ()

    @property
    def leads_out(self) -> bool:
        """Whether it is reached from the host, too. UmlError if there is no such network."""
        return not labs.find(self.name)[1].internal

    @property
    def described(self) -> str:
        """See `Network`."""
        more = [f"mac={self.mac}"] * bool(self.mac) + [f"ip={self.ip}"] * bool(self.ip)
        words = " ".join([f"network {self.name}", *more, *([f"vlan={self.vlan}"] if self.vlan else [])])
        return ", ".join([words, *(f"publishes {each}" for each in self.published)])

    @property
    def remark(self) -> str:
        """See `Network`."""
        return ""

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[MemberAttachment]:
        """See `Network`."""
        path, _ = labs.find(self.name)
        with await trio.to_thread.run_sync(labs.join, path) as connection:
            given = await trio.to_thread.run_sync(labs.request, connection, self._hello(place))
            connection.setblocking(False)
            try:
                async with session.opened(path, self.name, given["address"], place.tell) as opened:
                    attachment = MemberAttachment(self, place, connection, given, opened)
                    for published in self.published:
                        await attachment.publish(published)
                    yield attachment
            finally:
                for fd in given["descriptors"]:
                    os.close(fd)

    def _hello(self, place: Place) -> dict[str, Any]:
        it = self.impairment
        return {
            "do": "attach",
            "name": place.name,
            "mac": self.mac or place.mac,
            "ip": self.ip,
            "vlan": self.vlan,
            "impairment": [it.delay, it.loss, it.rate],
            "namespace": place.may_join,
        }


@dataclass(slots=True)
class MemberAttachment:
    """One card: a tap device in a namespace of the network's, or the socket that our switch is at the other end of."""

    network: Member
    place: Place
    connection: socket.socket
    given: dict[str, Any]
    session: NetworkSession
    published: list[Published] = field(default_factory=list)

    @property
    def publishes(self) -> bool:
        return self.given["gateway"] is not None

    @property
    def gear(self) -> Gear:
        gateway = self.given["gateway"]
        unit = self.place.unit
        is_joined = self.given["namespace"]
        fd = self.connection.fileno()
        return Gear(
            Card(f"vec{unit}", f"eth{unit}", [self.given["address"]], [gateway] if gateway else []),
            arguments=[self._word(f"tap,ifname={CARD},gro=1" if is_joined else f"fd,fd={fd}")],
            descriptors=[] if is_joined else [fd],
            servers=[self.given["server"]],
            knows=Knows.OWN_AND_OTHERS if gateway else Knows.OWN,
            search=[self.network.name],
            namespaces=tuple(self.given["descriptors"]),
            devices=[TUN] if is_joined else [],
        )

    def _word(self, transport: str) -> str:
        mac = self.network.mac or self.place.mac
        return f"vec{self.place.unit}:transport={transport},mtu={self.given['mtu']},mac={mac}"

    async def ready(self) -> None:
        """See `Attachment`."""

    async def settled(self) -> None:
        """See `Attachment`."""

    async def publish(self, published: Published) -> None:
        """See `Attachment`."""
        await self.session.publish(published)
        self.published.append(published)

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """See `Attachment`."""
        done = await self.session.withdraw(host_port, protocol)
        self.published = [each for each in self.published if (each.host_port, each.protocol) != (host_port, protocol)]
        return done
