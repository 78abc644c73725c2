"""How soon a mount shows what the host changed: `python tests/benchmarks/coherence.py [DIRECTORY]`.

The reader asks again and again, every millisecond, so what is told is up to a millisecond too much.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.mount import umlfs

CHANGES = 300
PAUSE = 0.001
GIVE_UP = 5.0


def until(condition: Callable[[], bool]) -> float:
    """Seconds until it holds."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > GIVE_UP:
            raise TimeoutError("not seen")
        time.sleep(PAUSE)
    return time.perf_counter() - start


def contents(host: Path, seen: Path, turn: int) -> float:
    (host / "file").write_bytes(b"%08d" % turn)
    return until(lambda: (seen / "file").read_bytes() == b"%08d" % turn)


def size(host: Path, seen: Path, turn: int) -> float:
    os.truncate(host / "cut", turn + 1)
    return until(lambda: (seen / "cut").stat().st_size == turn + 1)


def appears(host: Path, seen: Path, turn: int) -> float:
    assert not (seen / f"new-{turn}").exists()
    (host / f"new-{turn}").touch()
    return until((seen / f"new-{turn}").exists)


def vanishes(host: Path, seen: Path, turn: int) -> float:
    assert (seen / f"new-{turn}").exists()
    (host / f"new-{turn}").unlink()
    return until(lambda: not (seen / f"new-{turn}").exists())


def replaced(host: Path, seen: Path, turn: int) -> float:
    (host / "next").write_bytes(b"%08d" % turn)
    os.rename(host / "next", host / "replaced")
    return until(lambda: (seen / "replaced").read_bytes() == b"%08d" % turn)


KINDS = (contents, size, appears, vanishes, replaced)


def main(parent: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as text:
        host, seen = Path(text) / "host", Path(text) / "seen"
        host.mkdir()
        seen.mkdir()
        for name in ("file", "cut", "replaced"):
            (host / name).touch()
        with umlfs(host, seen):
            print(f"{'':12}{'median':>10}{'99 %':>10}{'maximum':>10}   of {CHANGES} changes")
            for kind in KINDS:
                taken = sorted(kind(host, seen, turn) * 1000 for turn in range(CHANGES))
                late = taken[len(taken) * 99 // 100]
                print(f"{kind.__name__:12}{statistics.median(taken):8.1f}ms{late:8.1f}ms{taken[-1]:8.1f}ms", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
