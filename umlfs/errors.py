"""Errors for the person at the keyboard: one line that says what failed, why, and the way out."""

from __future__ import annotations


class UmlError(Exception):
    """Something a person can mend.

    `str()` gives the whole line. `status` is the exit status of a command that ends with it: 1 for a
    failure, 2 for wrong usage. `details` are lines worth showing before it, such as the end of a log.
    """

    def __init__(self, what: str, way_out: str | None = None, *, status: int = 1, details: str = "") -> None:
        super().__init__(what, way_out)
        self.what = what
        self.way_out = way_out
        self.status = status
        self.details = details

    def __str__(self) -> str:
        return self.what if self.way_out is None else f"{self.what}; {self.way_out}"


class UsageError(UmlError):
    """Wrong usage: an argument that cannot mean anything."""

    def __init__(self, what: str, way_out: str | None = None) -> None:
        super().__init__(what, way_out, status=2)
