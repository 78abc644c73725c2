"""A kernel and its server on one processor, against wherever the host's scheduler puts them.

    python -m tests.benchmarks.processor [ROUNDS]

Boot alone, processes in the guest, and a tree of the host looked through by way of `--mount`. On one processor of the
host there is nothing to compare.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tests.benchmarks.ratio import measure, table

MAIN = "from runtime.cli import main; main()"
ANYWHERE = "from runtime.process.processor import ProcessorChoice; ProcessorChoice._take = lambda *_: None; " + MAIN
JOBS = {
    "true": ["true"],
    "200 processes": ["sh", "-c", "for i in $(seq 200); do /bin/true; done"],
    "find": ["sh", "-c", "find /mnt | wc -l"],
    "read all": ["sh", "-c", "tar cf - /mnt | wc -c"],
}


def run(program: str, command: list[str]) -> None:
    """One guest from beginning to end."""
    words = [sys.executable, "-P", "-c", program, "run", "--mount", "/mnt=/usr/include/linux:ro", "--", *command]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def main(rounds: int = 5) -> None:
    """Print a table for each job."""
    for job, command in JOBS.items():
        medians = measure(
            {"anywhere": partial(run, ANYWHERE, command), "on one": partial(run, MAIN, command)},
            rounds,
        )
        print(f"{job}\n{table(medians, 'anywhere')}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
