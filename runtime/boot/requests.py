"""What a machine answers at its management console itself, beyond what its kernel does."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

import trio

from runtime import errand, words
from runtime.boot import snapshot, statistics
from runtime.boot.description import Description
from runtime.boot.options import is_native
from runtime.boot.power import ACTIONS
from runtime.machine import Machine
from runtime.mconsole.client import Client
from runtime.mconsole.server import Handler
from runtime.mconsole.wire import Reply
from umlfs import ubd
from umlfs.errors import UmlError, UsageError
from umlfs.ubd.native import native_argument

HELP: Final = (
    "devices - List the devices of the machine",
    "stats - Tell what its disks and filesystems have done",
    "snapshot [<directory>] - Copy the COW files that the machine writes to",
    "config hostfs<n>=<directory>[:ro] - Mount a directory of the host as /mnt/hostfs<n>",
)
PLUGGED: Final = "/mnt"
"""Where in the guest directories appear that are added while it runs."""
SYNC_SECONDS: Final = 60.0
"""How long the guest may take to write back what it holds."""
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
        specs = [] if is_native(description) else map(ubd.parse, description.ubds)
        self._ours = {spec.unit: spec for spec in specs}
        self._machine = machine
        self._kernel = Client(machine.mconsole)
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
            "devices": self._devices,
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
        """A disk for the running guest. The kernel's own driver takes it: synchronous, as it knows no flush."""
        name, equals, _ = argument.partition("=")
        ours = self._unit(name)
        if not equals:
            if ours is None:
                return await self._kernel.request(f"config {name}")
            return Reply(0, ",".join(filter(None, [ours.file, ours.backing])))
        if argument == "ubd=sync":
            return await self._kernel.request(f"config {argument}")
        if ours is not None:
            return Reply(-errno.EBUSY, "Device is already configured")
        word = await native_argument(replace(ubd.parse(argument), sync=True))
        return await self._kernel.request(f"config {word}")

    async def _remove(self, argument: str) -> Reply:
        if self._unit(argument) is not None:
            return Reply(-errno.EBUSY, "Device is there for as long as the machine: it was given at its start")
        return await self._kernel.request(f"remove {argument}")

    def _unit(self, name: str) -> ubd.Spec | None:
        """Our own disk of that name, `ubd3` or `ubdd`."""
        try:
            return self._ours.get(ubd.parse(f"{name.rstrip('rsdct') if name[3:4].isdigit() else name[:4]}=x").unit)
        except UmlError:
            return None

    async def _plug(self, argument: str) -> Reply:
        """A directory for the running guest."""
        name, equals, source = argument.partition("=")
        place = _place(name)
        if not equals:
            found = self._machine.slots.at(place)
            return Reply(0, "" if found is None else f"{found.source}{':ro' * found.read_only}")
        self._require_running()
        await self._machine.slots.plug(words.mount(f"{place}={source}"))
        return Reply(0, "")

    async def _unplug(self, argument: str) -> Reply:
        self._require_running()
        await self._machine.slots.unplug(_place(argument.rstrip()))
        return Reply(0, "")

    def _require_running(self) -> None:
        if self._stopped:
            raise UmlError("the machine is stopped", "let it go on first: go")

    async def _devices(self, argument: str) -> Reply:
        return Reply(0, "\n".join(self._machine.devices))

    async def _snapshot(self, argument: str) -> Reply:
        copies = await snapshot.take(self._machine.stores, argument.rstrip(), self._paused)
        return Reply(0, "\n".join(copies))

    @contextlib.asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """The guest has written back what it holds, and does nothing."""
        async with self._pausing:
            if self._stopped:
                yield
                return
            await errand.run(self._machine, "sync", seconds=SYNC_SECONDS)
            try:
                reply = await self._kernel.request("stop")
                if reply.err:
                    raise UmlError(reply.text)
                yield
            finally:  # a kernel that was too slow to answer stops yet, and must find this
                with trio.CancelScope(shield=True):
                    await self._kernel.request("go")

    async def _stats(self, argument: str) -> Reply:
        return Reply(0, "\n".join(statistics.lines(self._machine.stores)))


def _place(name: str) -> str:
    """Where in the guest the directory called `name` appears: `hostfs1`. UsageError if that is no such name."""
    if not _NAME.match(name):
        raise UsageError(f"'{name}' is not a name", "write it like hostfs1")
    return f"{PLUGGED}/{name}"
