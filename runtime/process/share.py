"""How much of this host one machine gets, or several together: `cpu=2,mem=1G,io=50`, `web:cpu=2,mem=1G`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from umlfs.errors import UsageError
from umlfs.sizes import size_of

PERIOD: Final = 100_000
"""Microseconds in which a quota of processor time is given."""
WEIGHTS: Final = range(1, 10001)
CPUS_MAX: Final = 4096
HINT: Final = "write it like cpu=2,mem=1G,io=50, with NAME: before it for a compartment"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")


class Share(NamedTuple):
    """None for what is not limited."""

    cpu: int | None = None
    """Percent of one processor."""
    memory: int | None = None
    """Bytes."""
    io: int | None = None
    """The weight of its disk traffic among that of others, of which each has 100 by itself."""
    compartment: str = ""
    """The name of what several machines share; empty for a machine's own."""

    def limits(self) -> dict[str, str]:
        """The files of a control group (version 2), and what goes into them."""
        found = {}
        if self.cpu is not None:
            found["cpu.max"] = f"{self.cpu * PERIOD // 100} {PERIOD}"
        if self.memory is not None:
            found["memory.max"] = str(self.memory)
        if self.io is not None:
            found["io.weight"] = f"default {self.io}"
        return found


def parse_share(text: str) -> Share:
    """UsageError for what is no share."""
    name, colon, rest = text.rpartition(":")
    if colon and not _NAME.match(name):
        raise UsageError(f"{name}: not the name of a compartment", "use small letters, digits, - and _")
    found: dict[str, int] = {}
    for word in rest.split(","):
        key, equals, value = word.partition("=")
        if not equals or key not in _PARSERS:
            raise UsageError(f"--share {text}: '{word}' is no limit", HINT)
        if key in found:
            raise UsageError(f"--share {text}: {key} is there twice", "leave one of them out")
        found[key] = _PARSERS[key](text, value)
    return Share(found.get("cpu"), found.get("mem"), found.get("io"), name)


def _cpu(text: str, value: str) -> int:
    try:
        percent = round(float(value) * 100)
    except (ValueError, OverflowError):
        percent = 0
    if not 0 < percent <= CPUS_MAX * 100:
        raise UsageError(f"--share {text}: cpu={value} is no number of processors", "write it like cpu=1.5")
    return percent


def _memory(text: str, value: str) -> int:
    size = size_of(value)
    if not size:
        raise UsageError(f"--share {text}: mem={value} is no size", "write it like mem=1G")
    return size


def _io(text: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 6 and int(value) in WEIGHTS):
        raise UsageError(f"--share {text}: io={value} is no weight", "1 to 10000 exist; others have 100")
    return int(value)


_PARSERS: Final = {"cpu": _cpu, "mem": _memory, "io": _io}
