"""Namespaces of one network's own, users and network, and the process within that holds them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

import trio

from runtime.host import own
from runtime.network import inside
from runtime.process.keeper import Keeper
from umlfs.errors import UmlError

DESCRIPTORS_MAX: Final = 4
ANSWER_SECONDS: Final = 20.0
"""How long something may take within. A thousand times what it takes."""


class Interior:
    """Entered by `start`; ends with the keeper."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = trio.Lock()
        self.pid = 0
        """Of the process within."""

    def close(self) -> None:
        """Let the process within go."""
        self._near.close()
        self._far.close()

    async def start(self) -> None:
        """Make the namespaces. UmlError if this user may not."""
        number = str(self._far.fileno())
        users = ["--user", "--map-root-user"] if self.has_users else []
        module = own.module(inside.__name__, number)
        process = self._keeper.spawn(
            ["unshare", *users, "--net", "--", *module],
            output=subprocess.DEVNULL,
            pass_fds=[self._far.fileno()],
            env={**os.environ, "PATH": inside.PATH},
            makes_group=False,
        )
        self._far.close()
        self.pid = process.pid
        self._near.settimeout(ANSWER_SECONDS)
        await self.ask({})

    @property
    def has_users(self) -> bool:
        """Whether there is a namespace of users, too: root needs none."""
        return os.geteuid() != 0

    async def ask(self, message: dict[str, Any]) -> list[int]:
        """Have something done within, see `inside`: descriptors, which the caller closes. UmlError if it fails."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._ask, message)

    def _ask(self, message: dict[str, Any]) -> list[int]:
        try:
            self._near.send(json.dumps(message).encode())
            data, found, _, _ = socket.recv_fds(self._near, inside.MESSAGE_MAX, DESCRIPTORS_MAX)
        except OSError as error:
            raise UmlError(f"the network's namespaces are gone: {error.strerror}") from None
        if not data:
            raise UmlError("the network's namespaces cannot be made", "see `uml doctor`, or --engine switch")
        if "error" in (answer := json.loads(data)):
            raise UmlError(f"within the network: {answer['error']}")
        return found

    async def configure(self, commands: str, program: str = "ip") -> None:
        """Do commands of ip(8), or of bridge(8), line by line. UmlError."""
        await self.ask({"run": [program, "-batch", "-"], "input": commands})

    @property
    def network(self) -> Path:
        """The namespace of the network."""
        return Path(f"/proc/{self.pid}/ns/net")

    @property
    def enter_users(self) -> list[str]:
        """What to put before a command out here that is to have the rights of the namespaces' owner."""
        return ["nsenter", f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials", "--"] if self.has_users else []

    def users(self) -> list[int]:
        """A descriptor of the namespace of users, if there is one; the caller closes it."""
        return [self._open("user")] if self.has_users else []

    def namespaces(self) -> list[int]:
        """Descriptors of the namespaces, of users if there is one and of the network; the caller closes them."""
        return [*self.users(), self._open("net")]

    def _open(self, name: str) -> int:
        return os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)

    def counters(self) -> dict[str, list[int]]:
        """What each interface has received and sent, as /proc/net/dev has it: sixteen numbers."""
        lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()[2:]
        return {name.strip(): [*map(int, rest.split())] for name, _, rest in (line.partition(":") for line in lines)}
