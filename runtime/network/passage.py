"""A card whose frames we pass on to an engine, or do not."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from runtime.network.allowed import Allowed
from runtime.network.cable import Cable
from runtime.network.engine import connect
from umlfs.wire.unreachable import refusal

GATEWAY_MAC: Final = bytes.fromhex("52550a000202")
"""That of slirp4netns's gateway."""


class Passage:
    """Between a card of a guest and the socket of its engine. Closed by its context."""

    def __init__(self, allowed: Allowed, gateways: Sequence[str]) -> None:
        """`gateways` are those of IPv4 and of IPv6, in whose names a guest is told that it may not go somewhere."""
        self._allowed = allowed
        self._gateways = [ipaddress.ip_address(each).packed for each in gateways]
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.refused = 0
        """Frames that went nowhere."""

    def __enter__(self) -> Passage:
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()
        self.far.close()

    async def run(self, engine: Path) -> None:
        """Pass frames on to the engine that listens at `engine` and back, until one of both ends is gone."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            await connect(connection, engine)
            inner, outer = Cable(self._near), Cable(connection)

            def out(frame: bytes) -> None:
                if self._allowed.lets_out(frame):
                    outer.send(frame)
                    return
                self.refused += 1
                answer = refusal(frame, self._gateways[0], self._gateways[1], GATEWAY_MAC)
                if answer is not None:
                    inner.send(answer)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(inner.run, out)
                await outer.run(inner.send)
                nursery.cancel_scope.cancel()
