"""Many devices in one guest: boot time, and what kernel and back ends take of the host's memory, by kind and number.

python -m tests.benchmarks.devices [ROUNDS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import trio

from runtime.guest import Init
from runtime.machine.equipment import HostMount
from runtime.machine.machine import Machine, Options
from runtime.process.open_files import raise_limit
from umlfs.errors import UmlError
from umlfs.ubd import parse

COUNTS = (0, 8, 16, 24, 32, 40, 48)
SIZE = 16 << 20


def disks(place: Path, count: int) -> Options:
    """Disks of ours: at most 16 have the names of ubd devices, the others come to slots."""
    words = [parse(f"ubd{unit}={image(place, unit)}") for unit in range(min(count, 16))]
    return Options(ubds=words, disk_slots=max(0, count - 16), init=Init(""))


def native_disks(place: Path, count: int) -> Options:
    """Disks of the kernel's own driver: 16 are all that it knows."""
    if count > 16:
        raise UmlError("the kernel's driver has 16 units")
    return Options(
        ubds=[parse(f"ubd{unit}={image(place, unit)}") for unit in range(count)], native_ubd=True, init=Init("")
    )


def mounts(place: Path, count: int) -> Options:
    return Options(mounts=[HostMount(f"/mnt/{number}", f"hostfs:{place}") for number in range(count)], init=Init(""))


def image(place: Path, number: int) -> Path:
    path = place / f"{number}.img"
    with path.open("ab") as file:
        file.truncate(SIZE)
    return path


async def cost(options: Options) -> tuple[float, int]:
    """Seconds until the guest answers, and bytes of kernel and back ends."""
    since = time.monotonic()
    async with Machine(options) as machine:
        seconds = time.monotonic() - since
        assert machine.pid is not None
        group = os.getpgid(machine.pid)
        used = sum(each.memory_full_info().pss for each in psutil.process_iter() if _in(each, group))
        return seconds, used + psutil.Process().memory_full_info().uss


def _in(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except OSError:
        return False


def row(place: Path, kind: Callable[[Path, int], Options], count: int, rounds: int) -> str:
    """The quickest of all rounds, or why there is none."""
    try:
        found = [trio.run(cost, kind(place, count)) for _ in range(rounds)]
    except UmlError as error:
        return error.what
    return f"{min(seconds for seconds, _ in found):.2f} s  {min(used for _, used in found) >> 20} MB"


def main(rounds: int = 2) -> None:
    """Print the tables."""
    raise_limit()
    with tempfile.TemporaryDirectory() as directory:
        for kind in (disks, native_disks, mounts):
            for count in COUNTS:
                print(f"{kind.__name__:12} {count:3}  {row(Path(directory), kind, count, rounds)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
