"""How soon a watcher is told (inotify) of a change that the host makes in a directory shared with `notify`.

    python tests/benchmarks/notify.py [CHANGES]

Changes of each kind are made on the host; the time is from there to the watcher's line, so its own way is counted too.
First on a plain directory, then on a host mount, then in a guest.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
WATCHER = ROOT / "tests" / "watcher.py"
UML = str(ROOT / "uml")


def measure(name: str, words: Sequence[str], top: Path, seen: str, count: int) -> None:
    """One line for each kind of change."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*words, "python3", str(WATCHER), seen], **pipes) as watcher:  # type: ignore[call-overload]
        assert watcher.stdout.readline() == b"ready\n"
        kinds: dict[str, tuple[Callable[[Path], object], str]] = {
            "made": (Path.touch, "CREATE file"),
            "written": (lambda path: path.write_text("x"), "MODIFY file"),
            "saved": (lambda path: path.with_name("new").rename(path), "MOVED_TO file"),
            "removed": (Path.unlink, "DELETE file"),
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(count):
            for kind, (act, event) in kinds.items():
                if kind == "saved":
                    (top / "new").touch()
                    until(watcher.stdout, f"{seen} CLOSE_WRITE new")
                start = time.monotonic()
                act(top / "file")
                until(watcher.stdout, f"{seen} {event}")
                times[kind].append((time.monotonic() - start) * 1000)
                time.sleep(0.02)
        watcher.communicate()
    for kind, found in times.items():
        print(f"{name:12} {kind:8} median {statistics.median(found):6.1f} ms   longest {max(found):6.1f} ms")


def until(lines: Sequence[bytes], wanted: str) -> None:
    """Read up to this line."""
    while lines.readline().decode().strip() != wanted:  # type: ignore[attr-defined]
        pass


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as text:
        top, seen = Path(text, "source"), Path(text, "mount")
        top.mkdir()
        seen.mkdir()
        measure("plain", [], top, str(top), count)
        subprocess.run([UML, "mount", top, seen, "-o", "notify"], check=True)
        measure("host mount", [], top, str(seen), count)
        subprocess.run([UML, "umount", seen], check=True)
        measure("guest", [UML, "run", "--mount", f"/g={top}:notify", "--"], top, "/g", count)


if __name__ == "__main__":
    main()
