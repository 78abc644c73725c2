"""What runs in guests, look by look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import trio
from rich.table import Table
from rich.text import Text

from runtime.machines.listing import Listed, listing
from runtime.machines.processes import GuestProcess, processes
from umlfs.errors import UmlError

HEADINGS = ("UMID", "PID", "USER", "S", "CPU%", "CPU", "MEMORY", "NAME")


@dataclass(slots=True)
class Watched:
    """The machines that are watched, and what they had used at the last look."""

    path: Path | None
    """The directory of the only one; None for all of this user's."""
    lines: int
    _before: dict[tuple[str, int], float] = field(default_factory=dict)
    _at: float = 0.0

    async def look(self) -> Table:
        """A table of now."""
        parent = None if self.path is None else self.path.parent
        machines = [each for each in await listing(parent) if self.path is None or each.umid == self.path.name]
        found: dict[str, list[GuestProcess] | UmlError] = {}
        async with trio.open_nursery() as nursery:
            for machine in machines:
                nursery.start_soon(_ask, (parent or _parent()) / machine.umid, found)
        now = trio.current_time()
        elapsed, self._at = now - self._at if self._at else 0.0, now
        table = Table(*HEADINGS, box=None, pad_edge=False)
        used: dict[tuple[str, int], float] = {}
        for machine in machines:
            for row in self._rows(machine, found[machine.umid], used, elapsed):
                table.add_row(*(Text(_printable(cell), overflow="fold") for cell in row))
        self._before = used
        return table

    def _rows(
        self,
        machine: Listed,
        inside: list[GuestProcess] | UmlError,
        used: dict[tuple[str, int], float],
        elapsed: float,
    ) -> Iterable[Iterable[str]]:
        used[machine.umid, 0] = machine.cpu
        share = self._share((machine.umid, 0), machine.cpu, elapsed)
        state = machine.state if isinstance(inside, list) else f"{machine.state}: {inside.what}"
        memory = f"{machine.used >> 20}M"
        yield machine.umid, "host", "", "", _percent(share, elapsed), f"{machine.cpu:.1f}s", memory, state
        if isinstance(inside, UmlError):
            return
        shares = {}
        for each in inside:
            used[machine.umid, each.pid] = each.cpu
            shares[each.pid] = self._share((machine.umid, each.pid), each.cpu, elapsed)
        for each in sorted(inside, key=lambda it: (-shares[it.pid], -it.cpu))[: self.lines]:
            cpu, size = _percent(shares[each.pid], elapsed), f"{each.memory >> 10}K"
            yield "", str(each.pid), str(each.uid), each.state, cpu, f"{each.cpu:.1f}s", size, each.name

    def _share(self, key: tuple[str, int], cpu: float, elapsed: float) -> float:
        """Of one processor, since the last look."""
        return max(0.0, cpu - self._before.get(key, cpu)) / elapsed if elapsed else 0.0


def _percent(share: float, elapsed: float) -> str:
    return f"{share * 100:.0f}" if elapsed else ""


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _parent() -> Path:
    from runtime.machines.directory import machines_directory

    return machines_directory()


async def _ask(path: Path, found: dict[str, list[GuestProcess] | UmlError]) -> None:
    try:
        found[path.name] = await processes(path)
    except UmlError as error:
        found[path.name] = error
