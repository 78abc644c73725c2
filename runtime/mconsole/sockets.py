"""Where the machines of this user are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError

HISTORICAL: Final = Path("/tmp/uml")
"""Where machines of old had their directories."""


def home() -> Path | None:
    """The directory of this user's machines, ~/.uml; None for somebody without a home."""
    named = os.environ.get("HOME")
    return Path(named) / ".uml" if named else None


def candidates(name: str) -> Iterator[str]:
    """The paths that the socket of the machine `name`, a umid or a path, may have: the historical client's order."""
    for directory in (home(), HISTORICAL):
        if directory is not None and not name.startswith(f"{directory}/"):
            yield f"{directory}/{name}/mconsole"
    yield name


def find_socket(name: str) -> Path:
    """The socket of the machine `name`: a umid, a machine's directory, or a path. UmlError if there is none."""
    for path in map(Path, candidates(name)) if name else ():
        if path.exists():
            return path / "mconsole" if path.is_dir() else path
    where = home() or HISTORICAL
    raise UmlError(f"{name}: no such machine in {where}", "'uml ps' lists those that run, or give a socket's path")
