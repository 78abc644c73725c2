"""Opening channels by their names. Each is loaded when it is asked for: most machines have few kinds, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from runtime.consoles.channels.base import Channel, Surroundings, Tap
from runtime.consoles.spec import ChannelSpec as Spec
from runtime.consoles.spec import Pair


@contextlib.contextmanager
def opened(spec: Spec, tap: Tap, surroundings: Surroundings) -> Iterator[tuple[str, Channel | None]]:
    """Open a channel: its description, and what is to be run, if anything is. UmlError if it cannot be opened."""
    if spec.name == "null":
        yield "null", None
        return
    if spec.name == "port":
        from runtime.consoles.channels.port import open_port

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
            from runtime.consoles.channels.descriptors import open_fd

            return open_fd(spec, tap)
        case "tty":
            from runtime.consoles.channels.descriptors import Device

            return Device(spec, tap)
        case "log":
            from runtime.consoles.channels.log import Log

            return Log(spec, tap)
        case "unix":
            from runtime.consoles.channels.unix import Socket

            return Socket(spec, tap)
        case "xterm":
            from runtime.consoles.channels.xterm import Window

            return Window(tap, surroundings)
        case _:
            from runtime.consoles.channels.pts import Pts

            return Pts(tap)


def sides(pair: Pair) -> list[tuple[Spec, bool, bool]]:
    """The channels of a pair, once each: the channel, whether it types, whether it shows."""
    if pair.input == pair.output:
        return [(pair.input, True, True)]
    return [(pair.input, True, False), (pair.output, False, True)]
