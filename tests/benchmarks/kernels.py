"""All kernels that there are, side by side: what a boot costs, and what guests' work costs on each, with and without
ptrace. Each in turn, again and again; the best of each counts.

python -m tests.benchmarks.kernels [ROUNDS] [NAME...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from runtime.command.throwaway import run
from runtime.kernels.execution import Execution
from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from runtime.kernels.listing import rows
from runtime.machine.machine import Options

UML = [sys.executable, "-I", str(Path(sys.executable).parent / "uml")]
BOOTS: Final = 3
"""Of each kernel in each round: they are short, and what else the host does shows."""
WORK = """\
import json, os, subprocess, time
def took(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
def forks():
    for _ in range(100):
        if (pid := os.fork()) == 0:
            os.execv("/bin/true", ["true"])
        os.waitpid(pid, 0)
def calls():
    for _ in range(50_000):
        os.getppid()
def find():
    subprocess.run(["find", "/usr/include"], stdout=subprocess.DEVNULL)
find()
print(json.dumps({"100 forks": took(forks), "50,000 getppid": took(calls), "find, warm": took(find)}))
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A kernel, and how it runs its guests."""

    name: str
    seccomp: str

    @property
    def title(self) -> str:
        version = find_kernel(self.name).version
        return f"{version}, seccomp" if self.seccomp == "on" else version


def contestants(names: list[str]) -> list[Contestant]:
    """The distribution's own first, and those that can do without ptrace twice."""
    found = []
    for name in names or [row.name for row in reversed(rows())]:
        found.append(Contestant(name, "off"))
        if features(find_kernel(name)).has_seccomp:
            found.append(Contestant(name, "on"))
    return found


def measured(it: Contestant) -> dict[str, float]:
    """Seconds of each kind of work."""
    boot = min(_boot(it) for _ in range(BOOTS))
    options = Options(kernel=it.name, execution=Execution(it.seccomp))
    done = trio.run(lambda: run(["/usr/bin/python3", "-c", WORK], options, check=True))
    times: dict[str, float] = json.loads(done.stdout)
    return {"uml run -- true": boot} | times


def _boot(it: Contestant) -> float:
    """Seconds of a whole command that does nothing in a guest."""
    start = time.perf_counter()
    words = ["run", "--kernel", it.name, "--seccomp", it.seccomp, "--", "true"]
    subprocess.run([*UML, *words], check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(rounds: int = 5, *names: str) -> None:
    """Print the table."""
    racing = contestants(list(names))
    best: dict[Contestant, dict[str, float]] = {}
    for number in range(rounds + 1):
        for each in racing:
            times = measured(each)
            if number:  # a first one fills the caches
                before = best.get(each, times)
                best[each] = {kind: min(seconds, before[kind]) for kind, seconds in times.items()}
    kinds = list(best[racing[0]])
    width = max(len(each.title) for each in racing)
    print(f"{'':<{width}}" + "".join(f"{kind:>24}" for kind in kinds))
    for each, times in best.items():
        cells = (f"{times[kind]:.3f} s {best[racing[0]][kind] / times[kind]:5.2f}x" for kind in kinds)
        print(f"{each.title:<{width}}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, *sys.argv[2:])
