"""The ratios in what a benchmark prints, for the picture of all of them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TIMES: Final = re.compile(r"(?P<name>\S.*?)\s{2,}[\d.]+ ?s\s+(?P<ratio>[\d.]+)x\Z")
"""A line of `ratio.table`."""
_SIDES: Final = re.compile(r"(?P<name>\S.*?)\s{2,}[\d.]+s(?P<sides>(?:\s+[\d.]+s\s+[\d.]+)+)\Z")
"""A line of `guest_files.show`: the reference, and then a time and a ratio for each side."""
_SIDE: Final = re.compile(r"[\d.]+s\s+([\d.]+)")


class Ratio(NamedTuple):
    """How much longer something took than its peer."""

    name: str
    value: float


def ratios(output: str) -> list[Ratio]:
    """All that are in the tables of `output`; the peers, which are 1, left out."""
    found: list[Ratio] = []
    sides: list[str] = []
    for line in output.splitlines():
        if line.startswith(" ") and "ratio" in line:
            sides = [word for word in line.split() if word != "ratio"][2:]  # after "kernel hostfs"
        elif match := _SIDES.match(line.rstrip()):
            values = map(float, _SIDE.findall(match["sides"]))
            found += (Ratio(f"{match['name']} ({side})", value) for side, value in zip(sides, values, strict=False))
        elif match := _TIMES.match(line.rstrip()):
            found.append(Ratio(match["name"], float(match["ratio"])))
    return [ratio for ratio in found if ratio.value != 1]
