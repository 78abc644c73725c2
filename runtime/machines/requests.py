"""What a machine answers at its management console itself, beyond what its kernel does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

import trio

from runtime import guest
from runtime.machine import parsing
from runtime.machine.machine import Machine
from runtime.machine.script import run_script
from runtime.machines import statistics
from runtime.machines.description import Description
from runtime.machines.options import is_native
from runtime.machines.power import ACTIONS
from runtime.mconsole.client import Client
from runtime.mconsole.server import Handler
from runtime.mconsole.wire import Reply
from runtime.network import published, vector
from umlfs import ubd
from umlfs.errors import UmlError, UsageError

HELP: Final = (
    "devices - List the devices of the machine",
    "jail - Tell what keeps its kernel process from the host",
    "stats - Tell what its disks and filesystems have done",
    "snapshot [<directory>] - Copy the COW files that the machine writes to",
    "config hostfs<n>=<directory>[:ro] - Mount a directory of the host as /mnt/hostfs<n>",
    "config publish[<[addr:]port>=<guest port>[/udp]] - Publish a port of the guest, or list those that are",
    "remove publish<port>[/udp] - Publish it no longer",
)
PLUGGED: Final = "/mnt"
"""Where in the guest directories appear that are added while it runs."""
SYNC_SECONDS: Final = 60.0
"""How long the guest may take to write back what it holds."""
FROZEN_SECONDS: Final = 120
"""After so many of its seconds a guest thaws its filesystems by itself."""
STATES: Final = {"stop": "stopped", "go": "running"}
"""What the machine is once its kernel has done it."""
_NAME: Final = re.compile(r"hostfs\d{1,3}\Z")


class Requests:
    """The requests of one boot."""

    def __init__(
        self,
        description: Description,
        machine: Machine,
        *,
        asked: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        """`asked` is told of `halt` and `reboot`, which the kernel does without a word; `changed` of a new state."""
        self._native = is_native(description)
        self._machine = machine
        self._sync = False
        """`ubd=sync` was asked for: disks that come have flag `s`."""
        self._kernel = Client(machine.mconsole, machine.replies)
        self._asked = asked
        self._stopped = False
        self._pausing = trio.Lock()
        """Held by who stops the kernel, or lets it go on."""
        self._changed = changed

    def handlers(self) -> dict[str, Handler]:
        """By the words that the requests begin with."""
        return {
            **{action: self._power(action) for action in ACTIONS},
            **{request: self._state(request) for request in STATES},
            "config ubd": self._configure,
            "remove ubd": self._remove,
            "config hostfs": self._plug,
            "remove hostfs": self._unplug,
            "config vec": self._add_card,
            "config publish": self._publish,
            "remove publish": self._withdraw,
            "devices": self._devices,
            "jail": self._jail,
            "stats": self._stats,
            "snapshot": self._snapshot,
        }

    def _power(self, action: str) -> Handler:
        async def handle(argument: str) -> Reply:
            self._asked(action)
            return await self._kernel.request(action)

        return handle

    def _state(self, request: str) -> Handler:
        async def handle(argument: str) -> Reply:
            async with self._pausing:
                reply = await self._kernel.request(request)
            if not reply.err:
                self._stopped = request == "stop"
                self._changed(STATES[request])
            return reply

        return handle

    async def _configure(self, argument: str) -> Reply:
        """A disk for the running guest."""
        name, equals, _ = argument.partition("=")
        if not equals:
            found = self._disk(name)
            if found is None:
                return await self._kernel.request(f"config {name}")
            return Reply(0, ",".join(filter(None, [found.file, found.backing])))
        if argument == "ubd=sync":
            self._sync = True
            return await self._kernel.request(f"config {argument}")
        spec = ubd.parse(argument)
        if self._native:
            return await self._configure_natively(spec)
        self._require_running()
        await self._machine.disk_slots.plug(replace(spec, sync=spec.sync or self._sync))
        return Reply(0, "")

    async def _configure_natively(self, spec: ubd.Spec) -> Reply:
        """The kernel's own driver takes the disk: synchronous, as it knows no flush."""
        from umlfs.ubd.native import native_argument  # with all of COW files, see _snapshot

        if self._machine.layers.present:
            raise UmlError(
                f"{spec.name}: the kernel's jail does not show it files that it was not booted with",
                "name it at boot, use our own driver, or boot with --jail=off",
            )
        word = await native_argument(replace(spec, sync=True))
        reply = await self._kernel.request(f"config {word}")
        if reply.err or self._machine.has_agent:
            return reply
        return Reply(0, "the guest has no agent: its kernel's own driver has the disk, and writes it through")

    async def _jail(self, argument: str) -> Reply:
        return Reply(0, self._machine.layers.describe())

    async def _remove(self, argument: str) -> Reply:
        found = self._disk(argument.rstrip())
        if found is None:
            return await self._kernel.request(f"remove {argument}")
        self._require_running()
        await self._machine.disk_slots.unplug(found.unit)
        return Reply(0, "")

    def _disk(self, name: str) -> ubd.Spec | None:
        """Our own disk of that name, `ubd3` or `ubdd`."""
        try:
            unit = ubd.parse(f"{name.rstrip('rsdct') if name[3:4].isdigit() else name[:4]}=x").unit
        except UmlError:
            return None
        return self._machine.disk_slots.at(unit)

    async def _plug(self, argument: str) -> Reply:
        """A directory for the running guest."""
        name, equals, source = argument.partition("=")
        place = _place(name)
        if not equals:
            found = self._machine.slots.at(place)
            return Reply(0, "" if found is None else found.word)
        self._require_running()
        await self._machine.slots.plug(parsing.mount(f"{place}={source}"))
        return Reply(0, "")

    async def _unplug(self, argument: str) -> Reply:
        self._require_running()
        await self._machine.slots.unplug(_place(argument.rstrip()))
        return Reply(0, "")

    async def _add_card(self, argument: str) -> Reply:
        """A card for the running guest, by the kernel's own words, which it would not check."""
        if vector.is_vector(argument):
            jailed = self._machine.layers.present
            card = vector.parse(argument, jailed=bool(jailed))
            if jailed and not vector.can_come_late(card, self._machine.options.descriptors):
                raise UmlError(
                    f"vec{card.unit}: the kernel's jail does not show it what it was not booted with",
                    "name it at boot, or boot with --jail=off",
                )
        return await self._kernel.request(f"config {argument}")

    async def _publish(self, argument: str) -> Reply:
        """A port of the host for one of the running guest."""
        host, equals, guest = argument.removeprefix("publish").strip().partition("=")
        attachments = self._machine.networking.attachments
        if not equals:
            found = [each for each in attachments.published if host in ("", str(each.host_port))]
            return Reply(0, "\n".join(map(str, found)))
        self._require_running()
        await attachments.publish(published.parse(f"{host}:{guest}"))
        return Reply(0, "")

    async def _withdraw(self, argument: str) -> Reply:
        self._require_running()
        port, _, protocol = argument.removeprefix("publish").strip().partition("/")
        attachments = self._machine.networking.attachments
        if not port.isdigit() or not await attachments.withdraw(int(port), protocol or "tcp"):
            raise UmlError(f"port {port} is not published", "config publish lists those that are")
        return Reply(0, "")

    def _require_running(self) -> None:
        if self._stopped:
            raise UmlError("the machine is stopped", "let it go on first: go")

    async def _devices(self, argument: str) -> Reply:
        return Reply(0, "\n".join(self._machine.devices))

    async def _snapshot(self, argument: str) -> Reply:
        from runtime.machines import snapshot

        copies = await snapshot.take(self._machine.stores, argument.rstrip(), self._paused)
        return Reply(0, "\n".join(copies))

    @contextlib.asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """The guest has written back what it holds, its filesystems are frozen, and it does nothing."""
        async with self._pausing:
            if self._stopped:
                yield
                return
            frozen = f"{guest.script('freeze.sh')}freeze {FROZEN_SECONDS}\n"
            try:
                await run_script(self._machine, frozen, seconds=SYNC_SECONDS)
                try:
                    reply = await self._kernel.request("stop")
                    if reply.err:
                        raise UmlError(reply.text)
                    yield
                finally:  # a kernel that was too slow to answer stops yet, and must find this
                    with trio.CancelScope(shield=True):
                        await self._kernel.request("go")
            finally:
                with trio.CancelScope(shield=True):
                    await run_script(self._machine, f"{guest.script('freeze.sh')}go_on\n", seconds=SYNC_SECONDS)

    async def _stats(self, argument: str) -> Reply:
        return Reply(0, "\n".join(statistics.lines(self._machine.stores)))


def _place(name: str) -> str:
    """Where in the guest the directory called `name` appears: `hostfs1`. UsageError if that is no such name."""
    if not _NAME.match(name):
        raise UsageError(f"'{name}' is not a name", "write it like hostfs1")
    return f"{PLUGGED}/{name}"
