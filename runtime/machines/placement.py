"""Where on the host a machine runs, and how much of it it gets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.machines.description import Description
from runtime.process.control_group import joined
from runtime.process.share import Share, parse_share
from umlfs.errors import UmlError, UsageError
from umlfs.sizes import size_of

NODES: Final = Path("/sys/devices/system/node")
NICE: Final = range(-20, 20)

_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_PERCENT: Final = re.compile(r"(\d{1,6})%\Z")
_MPOL_BIND: Final = 2
_SET_MEMPOLICY: Final = 238
"""The system call, on x86_64."""
_NODES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Placement:
    """What is asked for; None for what is left as it is."""

    cpus: tuple[int, ...] | None = None
    nice: int | None = None
    numa: int | None = None
    quota: int | None = None
    """Percent of one processor."""
    memory: int | None = None
    """Bytes."""
    share: Share | None = None

    @classmethod
    def of(cls, description: Description) -> Placement:
        """What the description asks for. UsageError for what cannot be meant."""
        return cls(
            parse_cpus(description.cpus) if description.cpus else None,
            _nice(description.nice) if description.nice else None,
            _node(description.numa) if description.numa else None,
            parse_quota(description.cpu_quota) if description.cpu_quota else None,
            parse_bytes(description.memory_max) if description.memory_max else None,
            parse_share(description.share) if description.share else None,
        )._checked()

    @contextlib.contextmanager
    def applied(self, name: str) -> Iterator[None]:
        """This process, and all that it starts from now on, is placed so; the cgroup, called after the machine
        `name`, is removed in the end. UmlError for what the host does not allow."""
        with contextlib.ExitStack() as stack:
            if self.quota is not None or self.memory is not None:
                own = Share(self.quota, self.memory)
                stack.enter_context(joined(name, own.limits(), "--cpu-quota and --memory-max"))
            if self.share is not None:
                group = self.share.compartment or name
                stack.enter_context(joined(group, self.share.limits(), "--share"))
            if self.numa is not None:
                _bind_memory(self.numa)
            if self.cpus is not None:
                os.sched_setaffinity(0, self.cpus)
            try:
                if self.nice is not None:
                    os.setpriority(os.PRIO_PROCESS, 0, self.nice)
            except PermissionError:
                raise UmlError(f"--nice {self.nice}: this user may not", "only root may go below 0") from None
            yield

    def _checked(self) -> Placement:
        if self.share is not None and (self.quota is not None or self.memory is not None):
            raise UsageError("--share says what --cpu-quota and --memory-max say", "leave out the one or the other")
        return self


def parse_cpus(text: str) -> tuple[int, ...]:
    """`0-2,5`. UsageError for anything else, and for processors that this process may not use."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = _RANGE.match(part)
        if found is None:
            raise UsageError(f"--cpus {text}: not a list of processors", "write it like 0-2,5")
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    allowed = os.sched_getaffinity(0)
    if not numbers or numbers - allowed:
        there = ",".join(map(str, sorted(allowed)))
        raise UsageError(f"--cpus {text}: not all of them can be used", f"there are {there}")
    return tuple(sorted(numbers))


def parse_quota(text: str) -> int:
    """Percent of a processor, from `50%`. UsageError."""
    found = _PERCENT.match(text)
    if found is None or not int(found[1]):
        raise UsageError(f"--cpu-quota {text}: not a share of a processor", "write it like 50%, or 150%")
    return int(found[1])


def parse_bytes(text: str) -> int:
    """Bytes, from `300M`. UsageError."""
    size = size_of(text)
    if not size:
        raise UsageError(f"--memory-max {text}: not a size", "write it like 300M")
    return size


def _nice(value: int) -> int:
    if value not in NICE:
        raise UsageError(f"--nice {value}: out of range", f"{NICE.start} to {NICE.stop - 1} exist")
    return value


def _node(text: str) -> int:
    if not text.isdigit() or len(text) > 4 or int(text) >= _NODES_MAX:
        raise UsageError(f"--numa {text}: not the number of a node", "write it like 0")
    return int(text)


# NUMA -----------------------------------------------------------------------------------------


def _bind_memory(node: int) -> None:
    """Have memory of this process, and of those it starts, come from `node`. UmlError where there is none of it."""
    if not (NODES / f"node{node}").is_dir():
        nodes = sorted(path.name for path in NODES.glob("node[0-9]*"))
        way_out = f"there are {', '.join(nodes)}" if nodes else "this host's kernel knows no nodes: leave it out"
        raise UmlError(f"--numa {node}: no such node", way_out)
    mask = (ctypes.c_ulong * (_NODES_MAX // 64))()
    mask[node // 64] = 1 << (node % 64)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SET_MEMPOLICY, _MPOL_BIND, mask, _NODES_MAX) != 0:
        why = os.strerror(ctypes.get_errno())
        raise UmlError(f"--numa {node}: the host does not allow it: {why}", "leave it out")
