"""Where members of an archive go, and how they get there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

import trio

from humfs.importer import Member, Path, show, split
from humfs.tarball import member, members, opened

Warn = Callable[[str], None]
Tick = Callable[[int, str], None]
"""Is told how much is done, and what is counted (`files`, `MiB`); raises what ends the work."""

_PACE: Final = 200
"""After so many members it is looked whether to go on."""


def no_warning(line: str) -> None:
    """Say nothing."""


def no_tick(count: int, unit: str) -> None:
    """Go on."""


class Sink(Protocol):
    """Takes members in the order of the archive."""

    @property
    def warn(self) -> Warn: ...

    def add(self, member: Member) -> None: ...

    def link(self, path: Path, target: Path) -> None: ...


def pour(stream: BinaryIO, sink: Sink, tick: Tick = no_tick) -> int:
    """Put everything in a tar archive (compressed or not) into `sink`; returns how much that was. Waits.

    UmlError for what is no archive, or what the sink refuses.
    """
    count = 0
    with opened(stream) as archive:
        for info in members(archive):
            if info.islnk():
                sink.link(split(os.fsencode(info.name)), split(os.fsencode(info.linkname)))
            elif (made := member(archive, info)) is None:
                sink.warn(f"{show(split(os.fsencode(info.name)))}: left out, of unknown type {info.type!r}")
            else:
                sink.add(made)
            count += 1
            if not count % _PACE:
                tick(count, "files")
    return count


def ticking(progress: Tick) -> Tick:
    """For a thread that trio started: tells `progress`, and ends the work when its task was cancelled."""

    def tick(count: int, unit: str) -> None:
        trio.from_thread.check_cancelled()
        progress(count, unit)

    return tick
