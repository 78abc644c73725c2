"""Machines: the time of `uml boot -d` against that of `uml run -- true`, what spare devices add to a boot, and what 20
machines cost, side by side.

python -m tests.benchmarks.machines [ROUNDS] [MACHINES]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import trio

from runtime.guest import Init
from runtime.machine.machine import Machine, Options
from runtime.machines.directory import read_pid
from runtime.machines.listing import listing
from tests.benchmarks.ratio import measure, table

PROGRAM = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]


def uml(*words: str) -> None:
    """Run `uml` to its end; an error ends the benchmark."""
    subprocess.run([*PROGRAM, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def boot_and_end() -> None:
    """A boot, and the quickest end: what is measured besides the boot is told by `end` alone."""
    uml("boot", "-d", "umid=bench", "mem=256M")


def times(rounds: int) -> None:
    """Print how long a boot takes."""
    uml("run", "--", "true")

    def boot() -> None:
        boot_and_end()

    ends: list[float] = []
    medians: dict[str, float] = {}
    for _ in range(rounds):
        found = measure({"uml run -- true": lambda: uml("run", "--", "true"), "uml boot -d": boot}, 1)
        for name, seconds in found.items():
            medians[name] = min(medians.get(name, seconds), seconds)
        ends.append(measure({"end": lambda: uml("halt", "--now", "bench")}, 1)["end"])
    print(table(medians, "uml run -- true"))


SPARE = 16


def boot(slots: int, disk_slots: int) -> None:
    """Boot a machine with spare devices, in this process, and end it."""

    async def come_and_go() -> None:
        async with Machine(Options(init=Init(""), slots=slots, disk_slots=disk_slots, memory=64 << 20)):
            pass

    trio.run(come_and_go)


def spares(rounds: int) -> None:
    """Print what spare devices cost."""
    contestants: dict[str, Callable[[], None]] = {
        "no spare devices": lambda: boot(0, 0),
        f"{SPARE} for directories": lambda: boot(SPARE, 0),
        f"{SPARE} for disks": lambda: boot(0, SPARE),
    }
    for run in contestants.values():
        run()
    print(table(measure(contestants, rounds), "no spare devices"))


def memory(machines: Sequence[str], home: Path) -> None:
    """Print what each machine takes of the host's memory."""
    ours = []
    for umid in machines:
        pid = read_pid(home / ".uml" / umid)
        assert pid is not None
        ours.append(psutil.Process(pid).memory_full_info().pss)
    kernels = [each.used for each in trio.run(listing, home / ".uml")]
    print(f"{len(machines)} machines of 32 MiB, bytes shared by several divided among them:")
    print(f"  our process      {sum(ours) / len(ours) / 2**20:6.1f} MiB each, at most {max(ours) / 2**20:.1f}")
    print(f"  the kernel's     {sum(kernels) / len(kernels) / 2**20:6.1f} MiB each")


def main(rounds: int = 7, machines: int = 20) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory(dir="/tmp") as text:
        os.environ["HOME"] = text
        times(rounds)
        spares(rounds)
        names = [f"m{number}" for number in range(machines)]
        try:
            for name in names:
                uml("boot", "-d", f"umid={name}", "mem=32M")
            for name in names:
                uml("exec", name, "true")
            memory(names, Path(text))
        finally:
            for name in names:
                subprocess.run([*PROGRAM, "halt", "--now", name], check=False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
