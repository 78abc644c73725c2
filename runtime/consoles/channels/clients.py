"""One client at a time for each of several lines."""

from __future__ import annotations

from typing import Final

import trio

from runtime.consoles.channels.base import Tap, is_connected

LEAVING_SECONDS: Final = 2.0
"""How long a client that has hung up may keep its line from the next one: until its last keys are given up."""


class LineClients:
    """The lines, and who has them."""

    def __init__(self) -> None:
        self.taps: list[Tap] = []
        self._taken: dict[int, trio.socket.SocketType] = {}
        """By the index of a tap, who has it."""
        self._left = trio.lowlevel.ParkingLot()

    async def take(self, client: trio.socket.SocketType) -> int | None:
        """The index of a line for `client`, rather one where the guest has said something; None if all are taken.

        Waits only for one whose client has left just now.
        """
        if self._free() is None and not all(is_connected(each)() for each in self._taken.values()):
            with trio.move_on_after(LEAVING_SECONDS):
                while self._free() is None:
                    await self._left.park()
        index = self._free()
        if index is not None:
            self._taken[index] = client
        return index

    def leave(self, index: int) -> None:
        """The line is free again."""
        del self._taken[index]
        self._left.unpark_all()

    def _free(self) -> int | None:
        free = [index for index in range(len(self.taps)) if index not in self._taken]
        return min(free, key=lambda index: not self.taps[index].end.said, default=None)

    async def wait_for_end(self) -> None:
        """Return when all lines have ended."""
        for tap in self.taps:
            while not tap.end.ended:
                await tap.end.wait_for_output()

    def refusal(self) -> bytes:
        """What to tell a client that gets none."""
        lines = " and ".join(
            f"{self.taps[index].end.line} is in use by {_name(who)}" for index, who in self._taken.items()
        )
        return f"{lines}; try again when that client has left\r\n".encode()


def _name(client: trio.socket.SocketType) -> str:
    try:
        place = client.getpeername()
    except OSError:
        return "one who is about to leave"
    return f"{place[0]} port {place[1]}" if isinstance(place, tuple) else "another program"
