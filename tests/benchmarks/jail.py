"""What the jail costs: `uml run -- true`, forks and files in a guest, with it and without.

python -m tests.benchmarks.jail [SECONDS]

Runs with and without are pairs, one right after the other and in turn first. What counts is the median of the
differences within pairs: whatever else the machine does hits both of a pair. There are as many pairs as SECONDS (50)
allow.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SECONDS: Final = 50.0
WORK: Final = {
    "true": (0.5, "true"),
    "500 forks": (0.25, "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done"),
    "find /usr/bin": (0.25, "find /usr/bin /usr/lib/python3 -ls >/dev/null"),
}
"""What the guest does, and its share of the time."""
MODES: Final = ("auto", "off")
PAIRS_MIN: Final = 3


def run(mode: str, script: str) -> float:
    """Seconds that a guest takes to run `script`."""
    uml = [sys.executable, "-I", str(Path(sys.executable).parent / "uml")]
    start = time.perf_counter()
    subprocess.run([*uml, "run", f"--jail={mode}", "--", "sh", "-c", script], check=True)
    return time.perf_counter() - start


def pairs(script: str, seconds: float) -> list[dict[str, float]]:
    """The times of both modes, pair by pair."""
    end = time.monotonic() + seconds
    for mode in MODES:
        run(mode, script)  # fills the caches that a first run fills
    found: list[dict[str, float]] = []
    while len(found) < PAIRS_MIN or time.monotonic() < end:
        order = MODES if len(found) % 2 else MODES[::-1]
        found.append({mode: run(mode, script) for mode in order})
    return found


def main(seconds: float = SECONDS) -> None:
    """Print the table."""
    for name, (share, script) in WORK.items():
        times = pairs(script, share * seconds)
        jailed, free = (statistics.median(each[mode] for each in times) for mode in MODES)
        differences = [each["auto"] - each["off"] for each in times]
        low, cost, high = statistics.quantiles(differences, n=4)
        print(
            f"{name:<14} jail {jailed:.3f}s   off {free:.3f}s   {cost * 1000:+.0f} ms"
            f" ({low * 1000:+.0f} to {high * 1000:+.0f}, {len(times)} pairs)",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
