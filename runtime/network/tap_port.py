"""A tap device as a port of our switch."""

from __future__ import annotations

import contextlib
import os

import trio

from runtime.network.cable import TURN
from runtime.network.switch import FRAME_MAX, Port, Switch


async def serve_tap(switch: Switch, name: str, tap: int, *, uplink: bool = False) -> None:
    """Carry frames between the switch and the descriptor `tap`, which stays the caller's, until cancelled."""
    os.set_blocking(tap, False)

    def send(frame: bytes) -> bool:
        try:
            return os.write(tap, frame) > 0
        except OSError:
            return False

    port = Port(name, send, uplink=uplink)
    switch.add(port)
    try:
        while True:
            await trio.lowlevel.wait_readable(tap)
            with contextlib.suppress(BlockingIOError):
                for _ in range(TURN):
                    switch.forward(port, os.read(tap, FRAME_MAX + 1))
    finally:
        switch.remove(port)
