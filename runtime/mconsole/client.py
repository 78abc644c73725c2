"""Asking a machine."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from runtime.mconsole.exchange import ANSWER_SECONDS, FULL_SECONDS, Exchange, nonsense, silence
from runtime.mconsole.wire import Assembly, Malformed, Reply


class Client:
    """Asks the machine whose socket is at `path`. Requests may be under way at the same time."""

    def __init__(self, path: str | os.PathLike[str], replies: Path | None = None) -> None:
        """`replies`: see `Exchange`."""
        self.path = Path(path)
        self._replies = replies

    async def request(self, text: str, timeout: float = ANSWER_SECONDS) -> Reply:
        """The machine's whole reply to `text`.

        UmlError if there is no machine, or if it says nothing for `timeout` seconds, be it in the middle of a reply;
        UsageError for more than 511 bytes. Cancelling does not take the request back.
        """
        return (await collect(self.path, text, timeout, self._replies))[1]


async def collect(path: Path, text: str, timeout: float, replies: Path | None = None) -> tuple[list[bytes], Reply]:
    """As `Client.request`, and the datagrams of the reply as they came."""
    datagrams: list[bytes] = []
    assembly = Assembly()
    await trio.lowlevel.checkpoint()
    with Exchange(path, text, replies) as exchange, trio.move_on_after(timeout) as patience:
        while not exchange.send():  # noqa: ASYNC110 - nothing tells when there is room
            await trio.sleep(FULL_SECONDS)
        exchange.await_lively()
        while True:
            while (datagram := exchange.receive()) is not None:
                patience.deadline = trio.current_time() + timeout
                datagrams.append(datagram)
                try:
                    reply = assembly.feed(datagram)
                except Malformed as error:
                    raise nonsense(path, error) from None
                if reply is not None:
                    return datagrams, reply
            await trio.lowlevel.wait_readable(exchange.socket)
    raise silence(path, timeout, assembly.text)
