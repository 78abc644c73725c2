"""What a machine says to its network's process while it runs, and what that tells it."""

from __future__ import annotations

import contextlib
import json
import math
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from runtime.network import lab as labs
from runtime.network.published import Published
from umlfs.errors import UmlError

SECONDS: Final = 10.0
"""How long an answer may take."""


@dataclass(slots=True)
class NetworkSession:
    """One machine's."""

    connection: socket.socket
    name: str
    """The network's."""
    _answers: trio.MemoryReceiveChannel[dict[str, Any]] = field(init=False)
    _sender: trio.MemorySendChannel[dict[str, Any]] = field(init=False)
    _lock: trio.Lock = field(default_factory=trio.Lock)

    def __post_init__(self) -> None:
        self._sender, self._answers = trio.open_memory_channel(math.inf)

    async def publish(self, published: Published) -> None:
        """Have a port of the host lead to the machine. UmlError."""
        await self._ask({"do": "publish", "port": asdict(published)})

    async def withdraw(self, host_port: int, protocol: str) -> bool:
        """Publish a port no longer; whether it was. UmlError."""
        return bool((await self._ask({"do": "withdraw", "port": host_port, "protocol": protocol}))["done"])

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            try:
                self.connection.send(json.dumps(message).encode())
                with trio.fail_after(SECONDS):
                    answer = await self._answers.receive()
            except (OSError, trio.TooSlowError, trio.EndOfChannel):
                raise UmlError(f"network {self.name} does not answer", "its process may be gone: boot again") from None
        return labs.checked(answer)

    async def hear(self, tell: Callable[[str], None]) -> None:
        """Pass on what the network tells, until it is gone, which is told too."""
        with self._sender, contextlib.suppress(OSError, ValueError):
            while True:
                await trio.lowlevel.wait_readable(self.connection)
                data = self.connection.recv(labs.MESSAGE_MAX)
                if not data:
                    break
                message = json.loads(data)
                if "tell" in message:
                    tell(message["tell"])
                else:
                    self._sender.send_nowait(message)
        tell(f"network {self.name} is gone: the machine must boot again to be on it")


@contextlib.asynccontextmanager
async def opened(path: Path, name: str, address: str, tell: Callable[[str], None]) -> AsyncIterator[NetworkSession]:
    """The session of the machine with that address. UmlError if there can be none."""
    with await trio.to_thread.run_sync(labs.connect, path) as connection:
        hello = {"do": "session", "address": address.partition("/")[0]}
        await trio.to_thread.run_sync(labs.request, connection, hello)
        connection.setblocking(False)
        session = NetworkSession(connection, name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.hear, tell)
            yield session
            nursery.cancel_scope.cancel()
