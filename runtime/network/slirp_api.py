"""The requests of slirp4netns (`--api-socket`): ports of the host that it has lead to guests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from runtime.network.published import Published
from umlfs.errors import UmlError

PROGRAM: Final = "slirp4netns"
ANSWER_MAX: Final = 1 << 16
SECONDS: Final = 5.0
"""How long an answer may take."""
PERIOD_SECONDS: Final = 0.01
"""How often to look whether the socket is there."""


@dataclass(frozen=True, slots=True)
class SlirpApi:
    """One slirp4netns's."""

    path: Path
    """Of its socket."""

    async def add(self, published: Published, guest: str) -> None:
        """Have a port of the host lead to the guest of that address. UmlError."""
        if ":" in published.address:
            raise UmlError(f"{published.address}: {PROGRAM} publishes on IPv4 alone", "name an address of IPv4")
        await self._ask(
            "add_hostfwd",
            proto=published.protocol,
            host_addr=published.address,
            host_port=published.host_port,
            guest_addr=guest,
            guest_port=published.guest_port,
        )

    async def remove(self, published: Published) -> None:
        """Have it lead there no longer. UmlError, also if it did not."""
        listed = (await self._ask("list_hostfwd")).get("entries", [])
        wanted = published.host_port, published.protocol
        for entry in listed if isinstance(listed, list) else ():
            if (entry.get("host_port"), entry.get("proto")) == wanted:
                await self._ask("remove_hostfwd", id=entry["id"])
                return
        raise UmlError(f"{published}: {PROGRAM} does not have it")

    async def _ask(self, execute: str, **arguments: object) -> dict[str, Any]:
        request = {"execute": execute, **({"arguments": arguments} if arguments else {})}
        answer = bytearray()
        try:
            with trio.fail_after(SECONDS):
                async with await trio.open_unix_socket(str(self.path)) as stream:
                    await stream.send_all(json.dumps(request).encode())
                    await stream.send_eof()
                    while len(answer) < ANSWER_MAX and (piece := await stream.receive_some()):
                        answer += piece
            reply = json.loads(answer)
        except (OSError, ValueError, trio.TooSlowError, trio.BrokenResourceError) as error:
            raise UmlError(f"{PROGRAM} does not answer: {error}", "it may be starting: try again") from None
        if "error" in reply:
            raise UmlError(f"{PROGRAM}: {reply['error'].get('desc', reply['error'])}")
        found = reply.get("return", reply)  # a list comes without
        return found if isinstance(found, dict) else {}
