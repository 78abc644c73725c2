"""What a guest's work costs us: requests for each file, and processor time of ours for each request, in a live guest.

    python -m tests.benchmarks.requests [ROUNDS] [FILES]

A tree of FILES files (1000) of 1 to 9 KiB in directories of 50. Each job is done through `--mount`, a humfs, and on the
snapshot root. `user` and `sys` are the microseconds of this process's processor time for each request; the least of all
rounds, since whatever else the host does only adds to it. With UMLFS_PURE=1 nothing compiled is used.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import trio

from runtime import HostMount, Options
from runtime.machine.machine import Machine
from runtime.process.processes import for_machines
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from umlfs.virtio.fs import VirtioFs

DIRECTORY: Final = 50
COLD: Final = "echo 3 >/proc/sys/vm/drop_caches"


class Job(NamedTuple):
    """A job for the guest."""

    name: str
    prepare: str
    command: str


class Cost(NamedTuple):
    """What a job cost."""

    requests: int
    user: float
    """Seconds of processor time."""
    system: float


def jobs(place: str, tree: str) -> list[Job]:
    """Those for a filesystem at `place`, which has `tree`."""
    return [
        Job("find, cold", COLD, f"find {tree}"),
        Job("ls -lR, cold", COLD, f"busybox ls -lR {tree}"),
        Job("read all, cold", COLD, f"tar cf - {tree} | cat"),
        Job("read all, warm", "", f"tar cf - {tree} | cat"),
        Job("untar", f"mkdir {place}/work", f"tar xf {place}/tree.tar -C {place}/work"),
        Job("rm -r", "", f"rm -r {place}/work"),
    ]


def make_tree(directory: Path, files: int) -> None:
    """`tree`, and `tree.tar` of it."""
    for number in range(files):
        place = directory / "tree" / f"directory-{number // DIRECTORY}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number}.h").write_bytes(b"content\n" * 128 * (1 + number % 9))
    os.system(f"tar cf {directory}/tree.tar -C {directory} tree")  # the names are ours


def device(machine: Machine, tag: str) -> VirtioFs:
    """The device that serves the filesystem `tag`."""
    found = next(each for each in machine.stores if each.name == f"virtio-fs {tag}")
    assert isinstance(found, VirtioFs)
    return found


async def do(machine: Machine, command: str) -> None:
    """Have the guest do it."""
    started = machine.start(
        ["sh", "-c", f"({command}) >/dev/null"],
        stdout=Collector(1 << 16),
        stderr=(said := Collector(1 << 16)),
        environment={"PATH": DEFAULT_PATH},
    )
    if await started.wait():
        print(f"failed: {command}: {said}", file=sys.stderr)


async def measure(machine: Machine, served: VirtioFs, job: Job) -> Cost:
    """What `job` costs."""
    await do(machine, f"{job.prepare or chr(58)}")
    before, begin = served.statistics.requests, resource.getrusage(resource.RUSAGE_SELF)
    await do(machine, job.command)
    end = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(served.statistics.requests - before, end.ru_utime - begin.ru_utime, end.ru_stime - begin.ru_stime)


def show(title: str, name: str, files: int, costs: list[Cost]) -> str:
    """A line of the table."""
    each = [cost.requests / files for cost in costs]
    busy = [cost for cost in costs if cost.requests > files / 4] or [Cost(1, 0, 0)]
    user, system = (min(cost[which] / cost.requests for cost in busy) * 1e6 for which in (1, 2))
    return f"{title:10}{name:18}{min(each):12.2f}{user:10.1f}{system:10.1f}"


async def main(rounds: int = 3, files: int = 1000) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, for_machines():
        make_tree(Path(name), files)
        print(f"{'':28}{'a file':>12}{'user µs':>10}{'sys µs':>10}", flush=True)
        async with Machine(Options(memory=512 << 20, mounts=[HostMount("/m", name)])) as machine:
            for title, tag, place, tree in (
                ("--mount", "mount0", "/m", "/m/tree"),
                ("snapshot", "root", "/tmp", f"{name}/tree"),
            ):
                for job in jobs(place, tree):
                    if title == "snapshot" and job.name in ("untar", "rm -r"):
                        continue
                    served = device(machine, tag)
                    costs = [await measure(machine, served, job)]
                    for _ in range(rounds - 1 if job.name not in ("untar", "rm -r") else 0):
                        costs.append(await measure(machine, served, job))
                    print(show(title, job.name, files, costs), flush=True)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    trio.run(lambda: main(*words))
