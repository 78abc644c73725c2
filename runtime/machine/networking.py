"""The networks of one machine, from what its options name to the words that its kernel is given."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from runtime.guest.network import GuestNetwork
from runtime.jail.layers import Mode
from runtime.kernels.kernel import Kernel
from runtime.machine.equipment import Equipment
from runtime.machine.options import Options
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError

if TYPE_CHECKING:
    from runtime.network.contract import Attachment, Attachments

SETTLE_SECONDS: Final = 10.0
"""How long a guest that is up may take to reach its networks."""
ANONYMOUS: Final = Options().name
"""The host name of machines that were given none."""
LOCAL: Final = 0x02
"""The bit of a MAC address that says that nobody gave it out."""


class Networking:
    """The cards of a machine, and what they are attached to."""

    def __init__(self, options: Options, reconnect: Callable[[], Awaitable[None]]) -> None:
        self._options = options
        self._reconnect = reconnect
        self._each: list[Attachment] = []

    @property
    def attachments(self) -> Attachments:
        """The cards, for whoever publishes ports on them."""
        from runtime.network.contract import Attachments  # few machines of one command have a network

        return Attachments(self._each)

    @contextlib.asynccontextmanager
    async def attached(self, keeper: Keeper) -> AsyncIterator[None]:
        """All networks are under way, until the context ends. UmlError, UsageError."""
        if not self._options.networks:
            yield
            return
        from runtime.network.contract import Place

        async with contextlib.AsyncExitStack() as stack:
            for unit, network in enumerate(self._options.networks, self._first_unit()):
                joined = any(each.gear.namespaces for each in self._each)
                place = Place(
                    keeper,
                    self._options.name,
                    unit,
                    address(self._options.name, unit),
                    self._reconnect,
                    may_join=self._options.jail is not Mode.OFF and not joined,
                    tell=self._tell,
                )
                self._each.append(await stack.enter_async_context(network.attached(place)))
            try:
                yield
            finally:
                self._each.clear()

    def _first_unit(self) -> int:
        """After the cards that the kernel's own words make."""
        units = [int(found[1]) for word in self._options.arguments if (found := re.match(r"vec(\d+):", word))]
        return max(units, default=-1) + 1

    def _tell(self, line: str) -> None:
        if self._options.on_network is not None:
            self._options.on_network(line)

    def equip(self, equipment: Equipment, kernel: Kernel) -> None:
        """Add the cards to what a machine is equipped with."""
        network = GuestNetwork()
        gears = [attachment.gear for attachment in self._each]
        for gear in gears:
            network = network.with_card(gear.card, gear.search)
            equipment.arguments += gear.arguments
            equipment.network_modules += tuple(name for name in gear.modules if _has(kernel, name))
            equipment.grants.network = gear.namespaces or equipment.grants.network
            equipment.grants.devices += gear.devices
        servers = (server for gear in sorted(gears, key=lambda gear: gear.knows) for server in gear.servers)
        equipment.network = network._replace(servers=list(dict.fromkeys(servers)))

    @property
    def descriptors(self) -> list[int]:
        """What the kernel inherits."""
        return [number for attachment in self._each for number in attachment.gear.descriptors]

    async def ready(self) -> None:
        """Wait until a guest finds all of its networks. UmlError if that does not come."""
        for attachment in self._each:
            await attachment.ready()

    async def settled(self) -> None:
        """Wait until a guest that is up has all of its networks. UmlError if that does not come."""
        with trio.move_on_after(SETTLE_SECONDS) as limit:
            for attachment in self._each:
                await attachment.settled()
        if limit.cancelled_caught:
            raise UmlError("the guest did not connect to its network", "look at its log with -v, or at uml console")


def _has(kernel: Kernel, module: str) -> bool:
    from runtime.kernels.modules import resolve

    try:
        resolve(kernel, [module])
    except UmlError:
        return False
    return True


def address(name: str, unit: int) -> str:
    """The MAC address of a machine's card: always the same for a machine of that name, another for each run."""
    source = random.Random(f"{name}/{unit}" if name != ANONYMOUS else None)
    rest = source.getrandbits(40).to_bytes(5, "big")
    return ":".join(f"{byte:02x}" for byte in (LOCAL, *rest))
