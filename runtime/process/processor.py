"""One processor of the host for a kernel, and for the process that serves it.

A UML kernel does one thing at a time: it runs itself, or by ptrace one process of its guest, or it waits for us.
Left alone, the host's scheduler spreads these over its processors, and each system call of a guest wakes up
another one, twice; inside a virtual machine each of these costs an exit to its hypervisor as well. On one
processor they hand over to each other. docs/performance.md has the figures.

Which one is the scheduler's choice at the start of the kernel; whoever is crowded there moves to one that idles.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Final, NoReturn

import trio

SECONDS: Final = 1.0
"""Between two looks at how a kernel fares."""
AWAKE: Final = 0.05
"""The share of time that a kernel runs which is not idle."""
CROWDED: Final = 0.25
"""The share of time that a kernel waits for its processor from which it should move."""
FREE: Final = 0.5
"""The share of time that a processor idles which is worth moving to."""

_PROCESSOR: Final = 36
"""In /proc/PID/stat, counted from the state, which comes after the name."""
_NANOSECONDS: Final = 1e9
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class _Process:
    """Ours: where it might run before it shared a kernel's processor, and how many kernels it shares one with."""

    shares = False
    allowed: Set[int] = frozenset()
    kernels = 0


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Meanwhile this process is there for its machine alone, and is where the kernel is as long as that runs."""
    before, _Process.shares = _Process.shares, True
    try:
        yield
    finally:
        _Process.shares = before


@contextlib.contextmanager
def free_to_choose() -> Iterator[None]:
    """Processes that this thread starts meanwhile have nothing to do with a kernel: they may run wherever this process
    might before it shared the processor of one."""
    here = os.sched_getaffinity(0)
    _place([0], _Process.allowed if _Process.kernels else here)
    try:
        yield
    finally:
        _place([0], here)


class ProcessorChoice:
    """The processor on which a kernel is, out of those that it may use."""

    def __init__(self, kernel: int) -> None:
        """Give the kernel of this process number, which has just been started, the processor that it is on. Its
        helpers, and the processes of its guest, come to be there too."""
        self.kernel = kernel
        self.processor: int | None = None
        if not _Process.kernels:
            _Process.allowed = os.sched_getaffinity(0)
        _Process.kernels += 1
        self._allowed = _Process.allowed
        with contextlib.suppress(OSError, IndexError):
            self._take(int(_stat(kernel)[_PROCESSOR]))

    def leave(self) -> None:
        """The kernel has ended: without one, this process may run anywhere again."""
        _Process.kernels -= 1
        if _Process.shares and not _Process.kernels:
            _place(_threads(), _Process.allowed)

    async def keep(self) -> NoReturn:
        """Move whenever the processor has too little time for this kernel while another has plenty."""
        times = self._times(awake=True)
        idle: Mapping[int, float] | None = None
        while True:
            begin = trio.current_time()
            await trio.sleep(SECONDS if len(self._allowed) > 1 else float("inf"))
            seconds = trio.current_time() - begin
            before, times = times, self._times(awake=False)
            if times.get(self.kernel, (0.0, 0.0))[0] - before.get(self.kernel, (0.0, 0.0))[0] < AWAKE * seconds:
                idle = None
                continue
            times = self._times(awake=True)
            waited = sum(wait - before.get(pid, (0.0, wait))[1] for pid, (_, wait) in times.items())
            last, idle = idle, _idle() if waited > CROWDED * seconds else None
            if last and idle:
                self._move(
                    {cpu: (idle[cpu] - last[cpu]) / seconds for cpu in self._allowed & last.keys() & idle.keys()}
                )

    def _move(self, idle: Mapping[int, float]) -> None:
        best = max(idle, key=lambda processor: idle[processor], default=None)
        # Not all at once, where many are crowded.
        if best is not None and best != self.processor and idle[best] > FREE and random.random() < 0.5:
            self._take(best)

    def _take(self, processor: int) -> None:
        self.processor = processor
        for _ in range(2):  # whatever was started meanwhile
            _place(_processes(self.kernel), {processor})
        if _Process.shares:
            _place(_threads(), {processor})

    def _times(self, *, awake: bool) -> dict[int, tuple[float, float]]:
        """For how long the kernel and, if it is `awake`, the processes of its guest have run, and have waited to."""
        times = {}
        for pid in _processes(self.kernel) if awake else [self.kernel]:
            with contextlib.suppress(OSError, ValueError):
                ran, waited, _ = map(int, Path(f"/proc/{pid}/schedstat").read_bytes().split())
                times[pid] = ran / _NANOSECONDS, waited / _NANOSECONDS
        return times


def _processes(kernel: int) -> list[int]:
    """The kernel, its helpers, and the processes of its guest."""
    try:
        return [kernel, *map(int, Path(f"/proc/{kernel}/task/{kernel}/children").read_bytes().split())]
    except OSError:
        return [kernel]


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _place(processes: Iterable[int], processors: Set[int]) -> None:
    for pid in processes:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, processors)


def _stat(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _idle() -> dict[int, float]:
    """For how many seconds each processor has idled."""
    idle = {}
    for line in Path("/proc/stat").read_bytes().splitlines():
        name, _, numbers = line.partition(b" ")
        if name.startswith(b"cpu") and name != b"cpu":
            idle[int(name[3:])] = sum(map(int, numbers.split()[3:5])) / _TICKS
    return idle
