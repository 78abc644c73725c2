"""The way out of a network: one slirp4netns, and the ports of the host that it leads to machines."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from runtime.network import slirp
from runtime.network.bridge import UPLINK, Bridge
from runtime.network.engine import Engine, appearing, connect, slirp_jail
from runtime.network.lab import Lab
from runtime.network.published import Published, check_free
from runtime.network.slirp_api import PERIOD_SECONDS, SlirpApi
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError, UsageError

DEVICE_SECONDS: Final = 5.0
"""How long slirp4netns may take to make its device, once it listens for requests."""


class Uplink:
    """slirp4netns behind a port of our switch, or of a bridge."""

    def __init__(
        self,
        lab: Lab,
        keeper: Keeper,
        tell: Callable[[str], None],
        carry: Callable[[socket.socket], Awaitable[None]],
        bridge: Bridge | None,
    ) -> None:
        """`tell` says to people what happens to it. `carry` has our switch carry what goes by the socket, to its end;
        where there is a bridge, that does so by itself."""
        self._lab = lab
        self._bridge = bridge
        self._carry = carry
        self._program = slirp.find()
        self._socket = keeper.directory / UPLINK
        self._api = SlirpApi(keeper.directory / f"{UPLINK}.api")
        self._published: dict[Published, str] = {}
        """The addresses of the guests that ports lead to."""
        self._connected = trio.Event()
        there = self._api.path if bridge else self._socket
        self._tell = tell
        self.engine = Engine(
            slirp.PROGRAM, keeper, self._command, there, started=self._started, lost=_nothing, tell=tell
        )

    def _command(self) -> list[str]:
        self._api.path.unlink(missing_ok=True)
        options = [f"--cidr={self._lab.subnet}", f"--mtu={self._lab.mtu}", "--disable-host-loopback"]
        options.append(f"--api-socket={self._api.path}")
        if self._bridge is None:
            jail, sandbox = slirp_jail()
            return [*jail, self._program, *sandbox, *options, "--target-type=bess", str(self._socket)]
        interior = self._bridge.interior
        sandbox = ["--enable-sandbox", "--enable-seccomp", "--netns-type=path"]
        return [*interior.enter_users, self._program, *sandbox, *options, str(interior.network), UPLINK]

    async def ready(self) -> None:
        """Wait until it carries what comes. UmlError if that does not come."""
        await self.engine.ready()
        if self._bridge is not None:
            with trio.move_on_after(DEVICE_SECONDS):
                await self._connected.wait()
            if not self._connected.is_set():
                raise UmlError(f"{slirp.PROGRAM} made no device: {self.engine.why()}", "try --engine switch")

    async def _started(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._bridge is None:
                nursery.start_soon(self._connect)
            else:
                await self._join(self._bridge)
            await appearing(self._api.path, PERIOD_SECONDS)
            for published, guest in self._published.items():
                try:
                    await self._api.add(published, guest)
                except UmlError as error:
                    self._tell(f"{published}: {error}")

    async def _connect(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            await connect(connection, self._socket)
            await self._carry(connection)

    async def _join(self, bridge: Bridge) -> None:
        """It tells nobody when its device is there: so that is tried."""
        deadline = trio.current_time() + DEVICE_SECONDS
        while True:
            try:
                await bridge.connect_uplink()
                self._connected.set()
                return
            except UmlError:
                if trio.current_time() > deadline:
                    return
            await trio.sleep(PERIOD_SECONDS)

    # Ports ------------------------------------------------------------------------------------

    async def publish(self, published: Published, guest: str) -> None:
        """Have a port of the host lead to the guest of that address, until withdrawn. UmlError."""
        port = published.host_port
        if any((each.host_port, each.protocol) == (port, published.protocol) for each in self._published):
            raise UsageError(f"port {port} is published already", "remove it first")
        check_free(published)
        await self._api.add(published, guest)
        self._published[published] = guest

    async def withdraw(self, host_port: int, protocol: str, guest: str) -> bool:
        """Publish a port of that guest no longer; whether it was."""
        for each, whose in list(self._published.items()):
            if (each.host_port, each.protocol, whose) == (host_port, protocol, guest):
                await self._api.remove(each)
                del self._published[each]
                return True
        return False

    async def withdraw_all(self, guest: str) -> None:
        """A guest is gone, and so are its ports."""
        for each in [published for published, whose in self._published.items() if whose == guest]:
            del self._published[each]
            with contextlib.suppress(UmlError):  # then it is just being started again
                await self._api.remove(each)


async def _nothing() -> None:
    pass
