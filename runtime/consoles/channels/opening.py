"""Opening channels by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from runtime.consoles.channels.base import Channel, Surroundings, Tap
from runtime.consoles.channels.descriptors import Device, open_fd
from runtime.consoles.channels.log import Log
from runtime.consoles.channels.port import open_port
from runtime.consoles.channels.pts import Pts
from runtime.consoles.channels.unix import Socket
from runtime.consoles.channels.xterm import Window
from runtime.consoles.spec import Channel as Spec
from runtime.consoles.spec import Pair


@contextlib.contextmanager
def opened(spec: Spec, tap: Tap, surroundings: Surroundings) -> Iterator[tuple[str, Channel | None]]:
    """Open a channel: its description, and what is to be run, if anything is. UmlError if it cannot be opened."""
    if spec.name == "null":
        yield "null", None
        return
    if spec.name == "port":
        server, new = open_port(spec, tap, surroundings)
        with contextlib.closing(server) if new else contextlib.nullcontext():
            yield server.description, server if new else None
        return
    channel = _open(spec, tap, surroundings)
    with contextlib.closing(channel):
        yield channel.description, channel


def _open(spec: Spec, tap: Tap, surroundings: Surroundings) -> Channel:
    match spec.name:
        case "fd":
            return open_fd(spec, tap)
        case "tty":
            return Device(spec, tap)
        case "log":
            return Log(spec, tap)
        case "unix":
            return Socket(spec, tap)
        case "xterm":
            return Window(tap, surroundings)
        case _:
            return Pts(tap)


def sides(pair: Pair) -> list[tuple[Spec, bool, bool]]:
    """The channels of a pair, once each: the channel, whether it types, whether it shows."""
    if pair.input == pair.output:
        return [(pair.input, True, True)]
    return [(pair.input, True, False), (pair.output, False, True)]
