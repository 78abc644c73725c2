"""The internet without root: slirp4netns, a TCP/IP of its own in a process of the caller's.

The guest's card is a `bess` one, which takes bare Ethernet frames from a socket of slirp4netns. An MTU of 9000 makes it
two to three times as fast as 1500; the end that the world sees is the host's own, with its own MTU.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from runtime.guest.network import Card
from runtime.network import resolver
from runtime.network.contract import Gear, Place
from runtime.network.engine import Engine, appearing, slirp_jail
from runtime.network.published import Published, check_free
from runtime.network.slirp_api import PERIOD_SECONDS, SlirpApi
from umlfs.errors import UmlError, UsageError
from umlfs.host.programs import run_program

if TYPE_CHECKING:  # few guests are limited
    from runtime.network.passage import Passage

PROGRAM: Final = "slirp4netns"
INSTALL: Final = "install it: apt-get install slirp4netns"
OLDEST: Final = (1, 2, 0)
"""The first that serves a UML kernel (`--target-type=bess`)."""
MTU: Final = 9000
ADDRESS: Final = "10.0.2.100"
GATEWAY: Final = "10.0.2.2"
SERVER: Final = "10.0.2.3"
ADDRESS_6: Final = "fd00::100"
GATEWAY_6: Final = "fd00::2"
SERVER_6: Final = "fd00::3"
OWN: Final = (GATEWAY, SERVER, GATEWAY_6, SERVER_6)
"""What a guest needs, wherever else it may go."""


def present() -> str:
    """The program, of whatever version. UmlError if there is none."""
    path = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/usr/local/bin")
    if path is None:
        raise UmlError(f"no {PROGRAM} on this host, which --net user needs", INSTALL)
    return path


@cache
def find() -> str:
    """The program. UmlError if there is none, or none that is new enough. Runs it once."""
    path = present()
    try:
        printed = run_program([path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UmlError(f"{path}: cannot be run: {error}", INSTALL) from error
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", printed.decode(errors="replace"))
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        version = found[0] if found else "of an unknown version"
        raise UmlError(f"{path}: {version}, too old for --net user", f"{'.'.join(map(str, OLDEST))} or later will do")
    return path


@dataclass(frozen=True, slots=True)
class Slirp:
    """The network of slirp4netns."""

    host: bool = False
    """The guest reaches the host's loopback, at the gateway's address."""
    mac: str = ""
    published: Sequence[Published] = ()
    allow: Sequence[str] = ()
    """Where the guest may go alone; empty for everywhere."""
    mtu: int = MTU
    remark: str = field(default="", compare=False)

    @property
    def described(self) -> str:
        """See `Network`."""
        return f"the internet, by {PROGRAM}"

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[SlirpAttachment]:
        """See `Network`."""
        program = present()
        for published in self.published:
            check_free(published)
        with self._passage() as passage:
            attachment = SlirpAttachment(self, place, program, passage)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attachment.engine.run)
                yield attachment
                nursery.cancel_scope.cancel()

    def _passage(self) -> contextlib.AbstractContextManager[Passage | None]:
        """What its frames go through."""
        if not self.allow:
            return contextlib.nullcontext()
        from runtime.network.allowed import allowed
        from runtime.network.passage import Passage

        return Passage(allowed(self.allow, OWN), (GATEWAY, GATEWAY_6))


@dataclass(slots=True)
class SlirpAttachment:
    """One card, with its slirp4netns."""

    network: Slirp
    place: Place
    program: str
    passage: Passage | None = None
    """What the guest's frames go through, where not all may."""
    published: list[Published] = field(init=False)
    engine: Engine = field(init=False)
    ipv6: bool = field(default_factory=resolver.has_ipv6)
    _settled: trio.Event = field(default_factory=trio.Event)
    _trouble: UmlError | None = None

    def __post_init__(self) -> None:
        directory, unit = self.place.keeper.directory, self.place.unit
        self.published = list(self.network.published)
        self.engine = Engine(
            PROGRAM,
            self.place.keeper,
            self._command,
            directory / f"net{unit}",
            started=self._started,
            lost=self._lost,
            tell=self.place.tell,
        )

    @property
    def publishes(self) -> bool:
        return True

    @property
    def gear(self) -> Gear:
        unit, mac = self.place.unit, self.network.mac or self.place.mac
        six = self.ipv6
        return Gear(
            Card(
                f"vec{unit}",
                f"eth{unit}",
                [f"{ADDRESS}/24", *([f"{ADDRESS_6}/64"] if six else [])],
                [GATEWAY, *([GATEWAY_6] if six else [])],
            ),
            arguments=[f"vec{unit}:transport={self._transport},mtu={self.network.mtu},mac={mac}"],
            descriptors=[self.passage.far.fileno()] if self.passage else [],
            modules=["ipv6"] if six else [],
            servers=[SERVER],
            search=resolver.search_domains(),
        )

    @property
    def _transport(self) -> str:
        return f"fd,fd={self.passage.far.fileno()}" if self.passage else f"bess,dst={self.engine.socket}"

    def _command(self) -> list[str]:
        self._api.unlink(missing_ok=True)
        jail, sandbox = slirp_jail()
        return [
            *jail,
            self.program,
            *sandbox,
            "--target-type=bess",
            f"--mtu={self.network.mtu}",
            *(["--enable-ipv6"] if self.ipv6 else []),
            *([] if self.network.host else ["--disable-host-loopback"]),
            f"--api-socket={self._api}",
            str(self.engine.socket),
        ]

    @property
    def _port(self) -> SlirpApi:
        return SlirpApi(self._api)

    @property
    def _api(self) -> Path:
        return self.place.keeper.directory / f"net{self.place.unit}.api"

    async def ready(self) -> None:
        """See `Attachment`. What version the engine has is asked only where it fails."""
        try:
            await self.engine.ready()
        except UmlError:
            await trio.to_thread.run_sync(find)
            raise

    async def settled(self) -> None:
        """See `Attachment`."""
        if self.published:
            await self._settled.wait()
        if self._trouble is not None:
            raise self._trouble

    # Ports ------------------------------------------------------------------------------------

    async def _started(self) -> None:
        async with trio.open_nursery() as nursery:
            if self.passage is not None:
                nursery.start_soon(self.passage.run, self.engine.socket)
            await self._publish_all()

    async def _lost(self) -> None:
        if self.passage is None:
            await self.place.reconnect()

    async def _publish_all(self) -> None:
        """Publish what there is to be, at an engine that was started. It listens when the guest has connected."""
        await appearing(self._api, PERIOD_SECONDS)
        for published in self.published:
            try:
                await self._port.add(published, ADDRESS)
            except UmlError as error:
                self._trouble = self._trouble or error
                self.place.tell(f"{published}: {error}")
        self._settled.set()

    async def publish(self, published: Published) -> None:
        """See `Attachment`."""
        if any((each.host_port, each.protocol) == (published.host_port, published.protocol) for each in self.published):
            raise UsageError(f"port {published.host_port} is published already", "remove it first")
        check_free(published)
        await self._port.add(published, ADDRESS)
        self.published.append(published)

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """See `Attachment`."""
        for each in self.published:
            if (each.host_port, each.protocol) == (host_port, protocol):
                await self._port.remove(each)
                self.published.remove(each)
                return True
        return False
