"""What the host does to a directory, and what a program that watches it elsewhere is told of that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

WATCHER: Final = Path(__file__).with_name("watcher.py")

FILES: Final = {"file": "first\n", "watched": "", "run": "", "sub/inner": ""}
"""What there is when the watcher begins."""


def _save(top: Path) -> None:
    """As an editor does."""
    (top / ".file.new").write_text("saved\n")
    (top / ".file.new").rename(top / "file")


def _upload(top: Path) -> None:
    """From a directory that nobody watches."""
    (top.parent / "aside").write_text("new\n")
    (top.parent / "aside").rename(top / "file")


STEPS: Final[dict[str, tuple[Callable[[Path], object], list[str]]]] = {
    "made": (lambda top: (top / "new").write_text("x"), ["CREATE new", "MODIFY new", "CLOSE_WRITE new"]),
    "written": (lambda top: (top / "file").write_text("more\n"), ["MODIFY file", "CLOSE_WRITE file"]),
    "mode": (lambda top: (top / "file").chmod(0o600), ["ATTRIB file"]),
    "moved": (lambda top: (top / "new").rename(top / "newer"), ["MOVED_FROM new", "MOVED_TO newer"]),
    "removed": (lambda top: (top / "newer").unlink(), ["DELETE newer"]),
    "saved": (_save, ["MOVED_TO file"]),
    "moved in": (_upload, ["MOVED_TO file"]),
    "moved out": (lambda top: (top / "run").rename(top.parent / "run"), ["MOVED_FROM run"]),
    "linked": (lambda top: (top / "link").symlink_to("nowhere"), ["CREATE link"]),
    "second name": (lambda top: os.link(top / "file", top / "second"), ["CREATE second"]),
    "directory": (lambda top: (top / "dir").mkdir(), ["CREATE dir"]),
    "no directory": (lambda top: (top / "dir").rmdir(), ["DELETE dir"]),
    "fifo": (lambda top: os.mkfifo(top / "fifo"), ["CREATE fifo"]),
}
"""By its name, something that the host does, and events that a watcher of the directory must see, in this order."""


class Watcher:
    """What a watcher prints."""

    def __init__(self, watcher: subprocess.Popen[bytes]) -> None:
        """Returns when it listens."""
        assert watcher.stdout is not None
        self._lines = watcher.stdout
        assert self.line() == "ready"

    def line(self) -> str:
        return self._lines.readline().decode().strip()

    def until(self, *wanted: str) -> list[str]:
        """Every line up to the last of those wanted, which come in this order."""
        lines: list[str] = []
        for each in wanted:
            while (line := self.line()) != each:
                assert line, f"the watcher ended, and had not told: {each}; but {lines}"
                lines.append(line)
            lines.append(line)
        return lines


def check_steps(watcher: Watcher, top: Path, seen: str) -> None:
    """Do each step in `top`, which the watcher knows as `seen`, and wait until it has told of it."""
    for act, expected in STEPS.values():
        act(top)
        watcher.until(*(f"{seen} {event}" for event in expected))


def state(top: Path) -> dict[str, tuple[int, ...]]:
    """What an announcement must leave as it is: of each file its number, mode, owner, size and times of change."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        times = status.st_mtime_ns, status.st_ctime_ns
        found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, status.st_nlink, status.st_size, *times)
    return found
