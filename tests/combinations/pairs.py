"""Rows of values, one of each axis, in which every two values of different axes meet in some row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allpairspy import AllPairs

Row = Mapping[str, str]


def rows(axes: Mapping[str, Sequence[str]], *, strength: int = 2) -> list[Row]:
    """The rows, always the same for the same axes. With strength 3 every three values meet."""
    names = list(axes)
    return [
        dict(zip(names, values, strict=True)) for values in AllPairs([list(axes[name]) for name in names], n=strength)
    ]


def named(row: Row) -> str:
    """The row as a test's name."""
    return ",".join(value for value in row.values() if value != "none") or "plain"
