"""What a comparison of files and metadata finds."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a finding is about."""

    ADOPTED = "found under data/ without metadata: now the default owner's"
    MOVED = "found under another name: renamed"
    LOST = "not found under data/: its metadata is dropped"
    REPLACED = "another file than before, under the same name: it keeps the name's owner and mode"
    JOINED = "names of one file had become several files: joined again"
    SPLIT = "names of one file had become different files: each now has metadata of its own"
    SEPARATED = "different files had become one: separated again"
    TEMPORARY = "left by a repair or conversion that was broken off: removed"
    LINKS = "wrong number of links"
    UNREACHABLE = "metadata that no name leads to"
    FOREIGN = "on another filesystem of the host: left out"
    SPACE = "wrong count of used space"
    DATABASE = "the database is damaged"
    COMPLETED = "some of its metadata made no sense: that is now the host's, or the default owner's"
    REBUILT = "the database was made anew from what could be read of it"
    IMPORT = "an import was broken off: what came of it stays, import the rest again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the host's tree and the rows."""

    kind: Kind
    path: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {self.kind.value}{detail}"


def display(path: bytes) -> str:
    """A path inside the guest, printable."""
    return "/" + os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
