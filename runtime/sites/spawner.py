"""The program that runs a site's CGI scripts in its guest (`cgi.c`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import trio

from runtime.captive import Captive
from runtime.captive.streams import CommandInput
from runtime.host.compiled import compiled, install
from umlfs.errors import UmlError

log = logging.getLogger(__name__)

SOURCES: Final = [Path(__file__).with_name("cgi.c")]
NAME: Final = "cgi"
WHAT: Final = "the program that runs CGI scripts"
CONNECT: Final = "connect:"
"""Before the place of a socket, in the handler's place: requests go over a connection to it."""
IDS: Final = 'exec 2>&1; echo "$(id -u "$1") $(id -g "$1"),$(id -G "$1" | tr " " ,)"'


def install_spawner() -> None:
    """Compile it for all users of this installation. UmlError, OSError."""
    install(NAME, SOURCES, WHAT)


class Spawner:
    """Of one guest. `run` is to be running."""

    def __init__(self, guest: Captive) -> None:
        self._guest = guest
        self._orders = CommandInput()
        self.stopped = False
        """It was told to end."""

    async def run(self, user: str, handler: tuple[str, ...]) -> None:
        """Have `handler` answer each request as `user`, until /requests/next ends. UmlError if the guest has no such
        user, or if the program ends by itself."""
        uid, groups = await self._ids(user)
        program = await trio.to_thread.run_sync(compiled, NAME, SOURCES, WHAT)
        await self._guest.run_program(program, self._orders, [uid, groups, *handler])
        if not self.stopped:
            raise UmlError("what runs its scripts has ended")

    async def _ids(self, user: str) -> tuple[str, str]:
        done = await self._guest.run(["sh", "-c", IDS, "sh", user])
        uid, _, groups = done.stdout.decode(errors="replace").strip().partition(" ")
        if not uid.isdigit() or not groups.replace(",", "").isdigit():
            raise UmlError(f"the guest has no user {user}", "name another with 'user'")
        return uid, groups

    async def kill(self, session: int) -> None:
        """End the processes of a request that nobody waits for."""
        try:
            await self._orders.send_all(b"%d\n" % session)
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            log.debug("session %d is not killed: the guest ends, or another is being killed", session)
