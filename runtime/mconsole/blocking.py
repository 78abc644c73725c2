"""Asking a machine from a program without an event loop: importing one takes longer than the answer."""

from __future__ import annotations

import time
from pathlib import Path

from runtime.mconsole.exchange import ANSWER_SECONDS, FULL_SECONDS, Exchange, nonsense, silence
from runtime.mconsole.wire import Assembly, Malformed, Reply


def ask(path: Path, text: str, timeout: float = ANSWER_SECONDS) -> Reply:
    """The same as `runtime.mconsole.client.Client.request`. Blocks."""
    assembly = Assembly()
    with Exchange(path, text) as exchange:
        deadline = time.monotonic() + timeout
        while not exchange.send() and time.monotonic() < deadline:
            time.sleep(FULL_SECONDS)
        exchange.block(timeout)
        while (datagram := exchange.receive()) is not None:
            try:
                reply = assembly.feed(datagram)
            except Malformed as error:
                raise nonsense(path, error) from None
            if reply is not None:
                return reply
    raise silence(path, timeout, assembly.text)
