"""What the jail costs: `uml run -- true`, forks, files and a disk in a guest, with it and without.

python -m tests.benchmarks.jail [SECONDS]

Runs with and without are pairs, one right after the other and in turn first. What counts is the median of the
differences within pairs: whatever else the machine does hits both of a pair. There are as many pairs as SECONDS (50)
allow.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SECONDS: Final = 50.0
MOUNT: Final = "/tmp/bench"
WORK: Final = {
    "true": (0.3, "true"),
    "500 forks": (0.15, "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done"),
    "find /usr/bin": (0.15, "find /usr/bin /usr/lib/python3 -ls >/dev/null"),
    "read 100 MB": (0.1, f"cat {MOUNT}/large >/dev/null"),
    "300 files": (0.15, f"cd {MOUNT}; for i in $(seq 300); do echo $i >f$i; done; cat f* >/dev/null; rm f*"),
    "disk": (0.15, "dd if=/dev/zero of=/dev/ubda bs=1M count=64 conv=fsync; dd if=/dev/ubda of=/dev/null bs=4k"),
}
"""What the guest does, and its share of the time."""
MODES: Final = ("auto", "off")
PAIRS_MIN: Final = 3


@contextlib.contextmanager
def given() -> Iterator[list[str]]:
    """A directory and a disk for the guest, as options."""
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        (directory / "shared").mkdir()
        (directory / "shared/large").write_bytes(os.urandom(1 << 20) * 100)
        (directory / "disk").write_bytes(bytes(64 << 20))
        yield ["--mount", f"{MOUNT}={directory}/shared", "--ubd", f"ubd0={directory}/disk"]


def run(mode: str, script: str, options: list[str]) -> float:
    """Seconds that a guest takes to run `script`."""
    uml = [sys.executable, "-I", str(Path(sys.executable).parent / "uml")]
    start = time.perf_counter()
    command = [*uml, "run", f"--jail={mode}", *options, "--", "sh", "-c", script]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def pairs(script: str, seconds: float, options: list[str]) -> list[dict[str, float]]:
    """The times of both modes, pair by pair."""
    end = time.monotonic() + seconds
    for mode in MODES:
        run(mode, script, options)  # fills the caches that a first run fills
    found: list[dict[str, float]] = []
    while len(found) < PAIRS_MIN or time.monotonic() < end:
        order = MODES if len(found) % 2 else MODES[::-1]
        found.append({mode: run(mode, script, options) for mode in order})
    return found


def main(seconds: float = SECONDS) -> None:
    """Print the table."""
    with given() as options:
        for name, (share, script) in WORK.items():
            show(name, pairs(script, share * seconds, [] if name == "true" else options))


def show(name: str, times: list[dict[str, float]]) -> None:
    """Print one line."""
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
