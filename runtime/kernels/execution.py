"""How a kernel is to run its guest: with or without ptrace, on how many processors, in whose time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from runtime.kernels.features import features
from runtime.kernels.kernel import Kernel
from umlfs.errors import UmlError, UsageError

SECCOMP: Final = ("auto", "on", "off")
PROCESSORS_MAX: Final = 64
_TIME_TRAVEL: Final = re.compile(r"inf-cpu\Z|ext:.+\Z|on\Z")
NEWER: Final = "'uml kernel list' shows those that there are, 'uml kernel install' fetches newer ones"


@dataclass(frozen=True, slots=True)
class Execution:
    """How a kernel runs its guest."""

    seccomp: str = SECCOMP[0]
    """Processes of the guest work together with the kernel instead of being traced: two to five times as fast. But a
    process of the guest can then read and write all of the guest's memory, and so can do to the kernel process what it
    likes: `auto` does it where a jail keeps that from the host."""
    processors: int = 1
    """How many the guest has."""
    time_travel: str = ""
    """The guest's clock: by `inf-cpu` only waiting takes time, and none of the host's; `ext:ID:SOCKET` is told by
    somebody else. Empty: the host's."""

    def __post_init__(self) -> None:
        """UsageError for what cannot be meant."""
        if self.seccomp not in SECCOMP:
            raise UsageError(f"seccomp {self.seccomp!r}", f"say one of {', '.join(SECCOMP)}")
        if not 1 <= self.processors <= PROCESSORS_MAX:
            raise UsageError(f"--smp {self.processors}", f"1 to {PROCESSORS_MAX} can be had")
        if self.time_travel and not _TIME_TRAVEL.match(self.time_travel):
            raise UsageError(f"--time-travel {self.time_travel}: no such mode", "say inf-cpu or ext:ID:SOCKET")


USUAL: Final = Execution()
"""How kernels run their guests if nothing is said."""


def words(kernel: Kernel, execution: Execution, *, jailed: bool) -> list[str]:
    """What the kernel is told of it. UmlError for what this kernel cannot do."""
    known = features(kernel)
    found = []
    if known.has_seccomp:
        # With `auto` the kernel itself does without, where the host forbids it.
        wanted = {"on": "on", "off": "off", "auto": "auto" if jailed else "off"}[execution.seccomp]
        found.append(f"seccomp={wanted}")
    elif execution.seccomp == "on":
        raise UmlError(f"--seccomp on: Linux {kernel.version} cannot do that", NEWER)
    if execution.processors > 1:
        _check_processors(kernel, execution.processors, known.processors_max)
        if found and found[0] == "seccomp=off":
            why = "needs guests whose processes are not traced"
            raise UsageError(f"--smp {execution.processors}: {why}", "say --seccomp on")
        found.append(f"ncpus={execution.processors}")
    if execution.time_travel:
        if not known.has_time_travel:
            build = "build one: 'uml kernel build --flavour time-travel'"
            raise UmlError(f"--time-travel: Linux {kernel.version} has no time travel", build)
        found.append(f"time-travel={execution.time_travel}")
    return found


def _check_processors(kernel: Kernel, wanted: int, most: int) -> None:
    """UmlError if the kernel has not so many: it would say nothing, and do with fewer."""
    if most == 1:
        build = "build one: 'uml kernel build --flavour smp'"
        raise UmlError(f"--smp {wanted}: Linux {kernel.version} has one processor", build)
    if wanted > most:
        build = f"build one: 'uml kernel build --flavour smp --set CONFIG_NR_CPUS={wanted}'"
        raise UmlError(f"--smp {wanted}: Linux {kernel.version} has at most {most} processors", build)
