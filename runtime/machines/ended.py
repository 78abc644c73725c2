"""Machines that have ended: their logs, and how they ended, in `.ended/UMID` beside the directories of those that run.

    log         what the kernel said, and what we had to say of it
    ended.json  how it ended

The newest `KEPT` are kept. No machine can be called `.ended`: a umid does not begin with a dot.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from runtime.machines import directory as layout
from runtime.machines.listing import duration
from umlfs.host.newfile import sync_path, write_new

ENDED: Final = ".ended"
RECORD: Final = "ended.json"
KEPT: Final = 32
LAST_BYTES: Final = 4096
"""Where the last words are looked for, from the end of a log."""
UNKNOWN: Final = "killed"
"""How a machine ended whose supervisor could not say."""
BY_FORCE: Final = "ended by force"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a machine ended."""

    umid: str
    status: int | None
    """The kernel's exit status, 128 + N after signal N; None if nobody saw its end."""
    how: str = ""
    """Why it failed; empty for one that ended well."""
    root: str = ""
    since: float = 0.0
    """When it was started, in seconds since the epoch."""
    ended: float = 0.0
    """When it ended; 0 if nobody saw it."""
    last_words: str = ""
    """The last line of its log."""


def log_of(path: Path) -> Path:
    """Where the log of the machine with the directory `path` will be when it has ended."""
    return path.parent / ENDED / path.name / layout.LOG


def keep(path: Path, how: Ended) -> None:
    """Keep the log in the machine's directory `path`, which its owner is about to remove, and how it ended; durable on
    return. OSError."""
    place = log_of(path).parent
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path / layout.LOG, place / layout.LOG)
        sync_path(place / layout.LOG)
    write_new(str(place / RECORD), json.dumps(asdict(how)).encode(), 0o600)
    sync_path(place.parent)
    _forget_the_oldest(place.parent)


def _forget_the_oldest(parent: Path) -> None:
    for path in sorted(_directories(parent), key=_time)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _directories(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def all_ended(machines: Path) -> list[Ended]:
    """The machines that have ended, by their names; none that runs again is among them."""
    found = {path.name: _read(path) for path in (*_directories(machines / ENDED), *_stale(machines))}
    return [found[name] for name in sorted(found) if not layout.runs(machines / name)]


def _stale(machines: Path) -> Iterator[Path]:
    """Directories whose supervisor was killed."""
    for path in _directories(machines):
        if path.name != ENDED and (path / layout.PID).is_file() and not layout.runs(path):
            yield path


def place_of(machines: Path, umid: str) -> Path | None:
    """Where what is left of the machine `umid` is; None if there is nothing."""
    layout.check_umid(umid)
    stale = machines / umid
    if (stale / layout.PID).is_file() and not layout.runs(stale):
        return stale
    place = machines / ENDED / umid
    return place if place.is_dir() else None


def remove(machines: Path, umid: str) -> bool:
    """Forget the ended machine; whether there was one. OSError."""
    found = False
    while (place := place_of(machines, umid)) is not None:
        shutil.rmtree(place)
        found = True
    return found


def _read(path: Path) -> Ended:
    last = last_words(path / layout.LOG)
    try:
        record = json.loads((path / RECORD).read_text())
        return Ended(
            path.name,
            None if record["status"] is None else int(record["status"]),
            str(record["how"]),
            str(record["root"]),
            float(record["since"]),
            float(record["ended"]),
            last,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Ended(path.name, None, UNKNOWN, last_words=last)


def shown(each: Ended, now: float) -> str:
    """How it ended, for a person."""
    status = "" if each.status is None else f" ({each.status})"
    when = f" {duration(now - each.ended)} ago" if each.ended else ""
    return f"ended{status}{when}" + (f": {each.how}" if each.how else "")


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")
