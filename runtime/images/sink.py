"""Where members of an archive go, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

import trio

from humfs.importer import Member, Path
from humfs.losses import Losses
from humfs.tarball import opened
from umlfs.errors import UmlError

Warn = Callable[[str], None]
Tick = Callable[[int, str], None]
"""Is told how much is done, and what is counted (`files`, `MiB`); raises what ends the work."""

_PACE: Final = 200
"""After so many members it is looked whether to go on."""


def no_warning(line: str) -> None:
    """Say nothing."""


def no_tick(count: int, unit: str) -> None:
    """Go on."""


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What is told while one writes."""

    warn: Warn = no_warning
    tick: Tick = no_tick
    losses: Losses = field(default_factory=Losses)
    """What the target cannot carry."""


class TreeSink(Protocol):
    """Takes members in the order of the archive."""

    def add(self, member: Member) -> None: ...

    def link(self, path: Path, target: Path) -> None: ...


def pour(stream: BinaryIO, sink: TreeSink, report: ImageReport, check: Callable[[Member], None] | None = None) -> int:
    """Put everything in a tar archive (compressed or not) into `sink`; returns how much that was. Waits. `check` looks
    at each member but for further names.

    UmlError for what is no archive, or what the sink refuses.
    """
    count = 0
    with opened(stream, report.losses) as archive:
        for member in archive:
            if member.link is not None:
                sink.link(member.path, member.link)
            else:
                if check is not None:
                    check(member)
                sink.add(member)
            count += 1
            if not count % _PACE:
                report.tick(count, "files")
        if not archive.is_complete:
            raise UmlError("the archive has no end", "it was cut short, make it again")
    return count


def ticking(progress: Tick) -> Tick:
    """For a thread that trio started: tells `progress`, and ends the work when its task was cancelled."""

    def tick(count: int, unit: str) -> None:
        trio.from_thread.check_cancelled()
        progress(count, unit)

    return tick
