"""What every kind of network is to a machine."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runtime.guest.network import Card
from umlfs.errors import UmlError

if TYPE_CHECKING:
    from runtime.network.published import Published
    from runtime.process.keeper import Keeper


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a machine a card comes."""

    keeper: Keeper
    """Its directory is the machine's, and what it starts ends with the machine."""
    name: str
    """The machine's."""
    unit: int
    """The number of the card: `vecN` to the kernel, `ethN` in the guest."""
    mac: str
    """The card's address, unless the network's own options say otherwise."""
    reconnect: Callable[[], Awaitable[None]]
    """Have the guest connect its cards again: what they went by was lost, and is there again."""
    may_join: bool
    """The kernel can be started in a network namespace of the attachment's."""
    tell: Callable[[str], None]
    """Tell those who watch the machine of something in one line."""


class Attachment(Protocol):
    """One card of one machine on its network, for as long as the machine runs."""

    async def ready(self) -> None:
        """Wait until a guest, whose kernel boots meanwhile, finds its network. UmlError if that does not come."""

    async def settled(self) -> None:
        """Wait until all is there that a guest which is up finds: its published ports. UmlError."""

    async def publish(self, published: Published) -> None:
        """Have a port of the host lead to one of the guest. UmlError."""

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """Publish a port no longer; whether it was."""

    @property
    def publishes(self) -> bool:
        """Whether it can publish ports."""

    @property
    def gear(self) -> Gear: ...

    @property
    def published(self) -> Sequence[Published]: ...


class Knows(enum.IntEnum):
    """The names that a network's servers know. A guest asks in this order: one that finds no name ends the search."""

    OWN = 0
    """They refuse all else, and the next is asked."""
    OWN_AND_OTHERS = 1
    OTHERS = 2
    """What the host knows."""


@dataclass(frozen=True, slots=True)
class Gear:
    """What the kernel and the guest need of an attachment."""

    card: Card
    arguments: Sequence[str] = ()
    """Words for the kernel's command line."""
    descriptors: Sequence[int] = ()
    """What the kernel inherits."""
    modules: Sequence[str] = ()
    servers: Sequence[str] = ()
    """Whom to ask for names."""
    knows: Knows = Knows.OTHERS
    """Which names those know."""
    search: Sequence[str] = ()
    namespaces: tuple[int, ...] = ()
    """Descriptors of the namespaces that the kernel is to be started in, as of `Grants.network`."""
    devices: Sequence[Path] = ()
    """Devices of the host that it opens there."""


class Network(Protocol):
    """What a card can be attached to."""

    def attached(self, place: Place) -> AbstractAsyncContextManager[Attachment]:
        """Attach a card: on entry everything that stands behind it is under way, and it is gone at the exit.
        UmlError, UsageError if it cannot be."""

    @property
    def described(self) -> str:
        """What it is, for a person."""

    @property
    def remark(self) -> str:
        """What the person should know of it; empty for nothing."""


@dataclass(slots=True)
class Attachments:
    """All cards of a machine."""

    each: list[Attachment] = field(default_factory=list)

    def _publisher(self) -> Attachment:
        for attachment in self.each:
            if attachment.publishes:
                return attachment
        raise UmlError("the machine has no network to publish a port on", "boot it with --net user, or use uml forward")

    async def publish(self, published: Published) -> None:
        """Publish a port on the first card that can. UmlError."""
        await self._publisher().publish(published)

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """Publish a port no longer; whether it was."""
        for attachment in self.each:
            if await attachment.withdraw(host_port, protocol):
                return True
        return False

    @property
    def published(self) -> list[Published]:
        """What is published."""
        return [published for attachment in self.each for published in attachment.published]
