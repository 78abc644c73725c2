"""The cards of old, `ethN=TRANSPORT,…`, for every kernel.

Newer kernels have lost the drivers, and a jailed one has no network to find a switch or a tap device on. What the words
name is opened here, and the kernel gets it as a `vec` card, which the guest finds under the old name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.guest.network import Card
from runtime.network import slirp, tap
from runtime.network.contract import Attachment, Gear, Network, Place
from runtime.network.published import Published
from runtime.network.vector import Vector
from umlfs.errors import UmlError, UsageError
from umlfs.wire import uml_switch

CONTROL: Final = "/var/run/uml-utilities/uml_switch.ctl"
"""Where Debian's kernel looks for a switch."""
ANSWER_SECONDS: Final = 10.0
_WORD: Final = re.compile(r"eth(\d+)=(\w+)((?:,.*)?)\Z")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A port of a uml_switch."""

    number: int
    mac: str = ""
    control: str = CONTROL

    @property
    def described(self) -> str:
        """See `Network`."""
        return f"the switch at {self.control}"

    @property
    def remark(self) -> str:
        """See `Network`."""
        return replaced(f"eth{self.number}=daemon")

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[Attachment]:
        """See `Network`."""
        address = (b"\0\0\0\0" + os.urandom(16)).ljust(uml_switch.PATH_SIZE, b"\0")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as data,
        ):
            try:
                control.settimeout(ANSWER_SECONDS)
                control.connect(self.control)
                data.bind(address)
                control.send(uml_switch.encode_request(address))
                data.connect(uml_switch.decode_reply(control.recv(uml_switch.ADDRESS_SIZE, socket.MSG_WAITALL)))
            except OSError as error:
                why = os.strerror(error.errno or errno.ETIMEDOUT)
                way_out = f"start one: uml_switch -unix {self.control}"
                raise UmlError(f"eth{self.number}=daemon: no switch at {self.control}: {why}", way_out) from None
            except uml_switch.ProtocolError as error:
                raise UmlError(f"eth{self.number}=daemon: {self.control}: {error}") from None
            yield Handed(place, f"eth{self.number}", self.mac, data.fileno())


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap device of the host."""

    name: str
    """In the guest: `eth0`."""
    device: str
    mac: str = ""
    mtu: int = 1500

    @property
    def described(self) -> str:
        """See `Network`."""
        return f"the tap device {self.device}"

    @property
    def remark(self) -> str:
        """See `Network`."""
        return replaced(f"{self.name}=tuntap") if self.name.startswith("eth") else ""

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[Attachment]:
        """See `Network`."""
        try:
            fd, _ = tap.open_tap(self.device)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            way_out = f"make it yours: sudo ip tuntap add {self.device} mode tap user $USER"
            raise UmlError(f"{self.name}: tap device {self.device}: {why}", way_out) from None
        try:
            yield Handed(place, self.name, self.mac, fd, f"mtu={self.mtu},vec=0")
        finally:
            os.close(fd)


@dataclass(slots=True)
class Handed:
    """A card whose frames go by a descriptor that the kernel inherits; what is on it is the guest's own matter."""

    place: Place
    name: str
    mac: str
    descriptor: int
    options: str = "mtu=1500"

    @property
    def publishes(self) -> bool:
        return False

    @property
    def gear(self) -> Gear:
        unit, mac = self.place.unit, self.mac or self.place.mac
        word = f"vec{unit}:transport=fd,fd={self.descriptor},{self.options},mac={mac}"
        return Gear(Card(f"vec{unit}", self.name, up=False), arguments=[word], descriptors=[self.descriptor])

    async def ready(self) -> None:
        """See `Attachment`."""

    async def settled(self) -> None:
        """See `Attachment`."""

    async def publish(self, published: Published) -> None:
        """See `Attachment`."""
        raise UmlError(f"{self.name} publishes no ports", "use uml forward")

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """See `Attachment`."""
        return False

    @property
    def published(self) -> Sequence[Published]:
        return ()


def replaced(word: str) -> str:
    """What to say of a card of old."""
    return f"{word}: a card of old, which the guest has as a vec card of that name"


def is_legacy(word: str) -> bool:
    """Whether it is such a word."""
    return re.match(r"eth\d+=", word) is not None


def parse(word: str) -> Network:
    """The network that the word names. UsageError."""
    found = _WORD.match(word)
    if found is None:
        raise UsageError(f"{word}: not of the form ethN=TRANSPORT,…", "for example eth0=daemon")
    number, transport = int(found[1]), found[2]
    fields = [*found[3].split(",")[1:], "", "", "", ""]
    if transport == "daemon":
        if fields[1] not in ("", "unix"):
            raise UsageError(f"{word}: '{fields[1]}' is not a kind of socket", "it is unix")
        return Daemon(number, fields[0], fields[2] or CONTROL)
    if transport == "tuntap":
        if not fields[0]:
            raise UsageError(f"{word}: no tap device", "name one; or use --net user, which needs none")
        return Tap(f"eth{number}", fields[0], fields[1])
    if transport == "slirp":
        return slirp.Slirp(mac=fields[0], remark=replaced(f"eth{number}=slirp"))
    raise UsageError(f"{word}: {transport} needs this host's network, and the kernel is jailed", REPLACEMENT)


REPLACEMENT: Final = "use --net NAME (see 'uml net'), or --jail=off with a kernel that has the driver"


def of_vector(vector: Vector) -> Tap:
    """The tap device that a jailed kernel cannot open by itself."""
    it = vector.options
    return Tap(f"vec{vector.unit}", it["ifname"], it.get("mac", ""), int(it.get("mtu", "1500")))
