"""A network on the host kernel's own bridge, in namespaces of its own.

Each machine's kernel runs in a network namespace of its own, too, where there are one tap device for it, one end of a
cable (a veth) into the network, and a bridge between the two; the other end of the cable is a port of the network's
bridge, `hub`. So a kernel process that was taken over has nothing but its own card. What is no kernel in a namespace (a
card on a bad link or in a VLAN, a machine without a jail) hangs on a switch of ours, which has one port here, `trunk`.

Nobody can have frames that are for a neighbour: bridge ports of machines do not learn, and each card's address is
assigned to its port. Where the host has nft(8), frames in a neighbour's name are dropped, too.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from runtime.network import name_server
from runtime.network.engine import user_namespaces
from runtime.network.inside import PATH
from runtime.network.interior import Interior
from runtime.network.switch import Counts, Port
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError

HUB: Final = "hub"
TRUNK: Final = "trunk"
UPLINK: Final = "uplink"
HUB_MAC: Final = "02:00:00:00:00:01"
"""Without one of its own it would be that of some port, and change."""
CARD: Final = "card"
"""The tap device in a machine's namespace."""
TUN: Final = Path("/dev/net/tun")
_QUIET: Final = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/ip_forward": "0",
}
"""Bridges are to say nothing by themselves."""
_HUB: Final = {**_QUIET, "ipv4/ip_unprivileged_port_start": "0"}
"""The name server is nobody."""
_FILTER: Final = f"""\
add table bridge umlfs
add set bridge umlfs cards {{ type ether_addr; }}
add set bridge umlfs own {{ type ifname . ether_addr; }}
add chain bridge umlfs entry {{ type filter hook prerouting priority -300; }}
add rule bridge umlfs entry iifname "{TRUNK}" accept
add rule bridge umlfs entry ether saddr @cards iifname . ether saddr != @own drop
"""


def lacking() -> str:
    """What this host lacks for such a network; empty if nothing. Runs a short process, once."""
    return _lacking()


@cache
def _lacking() -> str:
    for program in ("ip", "bridge", "unshare", "nsenter"):
        if shutil.which(program, path=PATH) is None:
            return f"no program {program} (apt-get install iproute2 util-linux)"
    try:
        name_server.find()
    except UmlError as error:
        return str(error)
    if not TUN.exists():
        return f"no {TUN} (as root: modprobe tun)"
    if not os.access(TUN, os.R_OK | os.W_OK) or TUN.stat().st_mode & 0o6 != 0o6:
        return f"{TUN} is not for everyone (as root: chmod 666 {TUN})"
    return "" if user_namespaces() else "this user may not make namespaces"


class Bridge:
    """The bridge, and the machines on it."""

    def __init__(self, keeper: Keeper, mtu: int, address: str) -> None:
        """`address` is the bridge's own, with the length of its prefix."""
        self.interior = Interior(keeper)
        self.ports: dict[str, Port] = {}
        """Of machines, by the names of their interfaces."""
        self._mtu = mtu
        self._address = address
        self._numbers = itertools.count(1)
        self._filters = shutil.which("nft", path=PATH) is not None

    async def start(self) -> None:
        """Make it. UmlError."""
        await self.interior.start()
        await self.interior.ask({"settings": _HUB})
        await self.interior.configure(
            f"link set lo up\nlink add {HUB} address {HUB_MAC} type bridge\nlink set {HUB} mtu {self._mtu} up\n"
            f"addr add {self._address} dev {HUB}\n"
        )
        if self._filters:
            await self._filter(_FILTER)

    async def _filter(self, rules: str) -> None:
        await self.interior.ask({"run": ["nft", "-f", "-"], "input": rules})

    async def attach(self, port: Port) -> Sequence[int]:
        """A machine's place: descriptors of the namespaces for its kernel, which the caller closes. UmlError."""
        interface, mac = f"p{next(self._numbers)}", port.mac.hex(":")
        inner = (
            f"link add between type bridge ageing_time 0\ntuntap add dev {CARD} mode tap vnet_hdr\n"
            f"link set {CARD} mtu {self._mtu} master between up\nlink set far mtu {self._mtu} master between up\n"
            f"link set between mtu {self._mtu} up\n"
        )
        outer = (
            f"link add {interface} mtu {self._mtu} type veth peer name far mtu {self._mtu} netns {{pid}}\n"
            f"link set {interface} master {HUB} up\nlink set {interface} type bridge_slave learning off\n"
        )
        found = await self.interior.ask({"namespace": {"values": _QUIET, "inner": inner, "outer": outer}})
        self.ports[interface] = port
        try:
            await self.interior.configure(f"fdb add {mac} dev {interface} master static\n", "bridge")
            if self._filters:
                await self._filter(_elements("add", interface, mac))
        except BaseException:
            for fd in found:
                os.close(fd)
            await self.detach(port)
            raise
        return [*self.interior.users(), *found]

    async def detach(self, port: Port) -> None:
        """The machine is gone: so is its place. UmlError."""
        interface = self._interface(port)
        del self.ports[interface]
        await self.interior.ask({"run": ["ip", "link", "del", interface]})
        if self._filters:
            await self._filter(_elements("delete", interface, port.mac.hex(":")))

    async def plug(self, port: Port, plugged: bool) -> None:
        """Put the cable of a machine in, or pull it. UmlError."""
        port.plugged = plugged
        await self.interior.configure(f"link set {self._interface(port)} {'up' if plugged else 'down'}\n")

    def _interface(self, port: Port) -> str:
        return next(interface for interface, each in self.ports.items() if each is port)

    async def trunk(self) -> int:
        """A descriptor of the port for a switch of ours; the caller closes it. UmlError."""
        found = await self.interior.ask({"tap": TRUNK})
        await self.interior.configure(f"link set {TRUNK} mtu {self._mtu} master {HUB} up\n")
        return found[0]

    async def packets(self) -> int:
        """A descriptor that gives a copy of each frame; the caller closes it. UmlError."""
        return (await self.interior.ask({"packets": HUB}))[0]

    async def connect_uplink(self) -> None:
        """What was started for the way out has made its device: it becomes a port. UmlError while it has not."""
        await self.interior.configure(f"link set {UPLINK} mtu {self._mtu} master {HUB} up\n")

    def count(self) -> None:
        """Bring the counts of all ports up to date."""
        found = self.interior.counters()
        for interface, port in self.ports.items():
            if interface in found:
                port.counts = _counts(found[interface])


def _elements(do: str, interface: str, mac: str) -> str:
    return f'{do} element bridge umlfs cards {{ {mac} }}\n{do} element bridge umlfs own {{ "{interface}" . {mac} }}\n'


def _counts(numbers: Sequence[int]) -> Counts:
    """What goes into the bridge's end of a cable is what the machine sent."""
    received, packets, _, dropped, sent, sent_packets, _, more = *numbers[:4], *numbers[8:12]
    return Counts(packets, sent_packets, received, sent, dropped + more)
