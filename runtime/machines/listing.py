"""What machines there are, and what they cost the host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import trio

from runtime.machines import client
from runtime.machines import directory as layout
from runtime.machines.control_wire import Message
from umlfs.errors import UmlError

BY_HAND: Final = "by hand"
"""The state of a kernel that nobody looks after."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine that runs."""

    umid: str
    pid: int | None
    """Of who looks after it, or of the kernel if nobody does."""
    kernel: int | None
    state: str
    root: str = ""
    memory: int = 0
    """Bytes that the guest has."""
    used: int = 0
    """Bytes of the host's memory that its kernel takes, pages shared with others divided among them."""
    cpu: float = 0.0
    """Seconds of processor time since the kernel started."""
    uptime: float = 0.0
    """Seconds since the machine was started."""
    boots: int = 0
    devices: list[str] = field(default_factory=list)
    statistics: list[Message] = field(default_factory=list)
    """What its devices have done, see `runtime.machines.statistics`."""
    jail: Message = field(default_factory=dict)
    """What keeps its kernel process from the host, see `runtime.jail.layers`."""
    lines: dict[str, str] = field(default_factory=dict)
    """Where each console and serial line is on the host, as `con1`: `pts:/dev/pts/3`."""

    def cells(self) -> list[str]:
        """For a person to read."""
        return [
            self.umid,
            str(self.pid or ""),
            self.state,
            self.root,
            f"{self.used >> 20}M/{self.memory >> 20}M" if self.memory else f"{self.used >> 20}M",
            f"{self.cpu:.1f}s",
            duration(self.uptime),
            ", ".join(self.devices),
        ]


HEADINGS: Final = ("UMID", "PID", "STATE", "ROOT", "MEMORY", "CPU", "UP", "DEVICES")


async def listing(parent: Path | None = None) -> list[Listed]:
    """The machines of this user, by their names. Those that do not answer are among them."""
    found: list[Listed] = []

    async def look(path: Path) -> None:
        listed = await _looked_after(path) if layout.is_locked(path) else _by_hand(path)
        if listed is not None:
            found.append(listed)

    async with trio.open_nursery() as nursery:
        for path in sorted(_directories(parent or layout.machines_directory())):
            nursery.start_soon(look, path)
    return sorted(found, key=lambda each: each.umid)


def _directories(parent: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):
        return [path for path in parent.iterdir() if (path / layout.PID).is_file()]
    return []


async def _looked_after(path: Path) -> Listed:
    try:
        state = await client.state(path)
        kernel = state["kernel"]
        used, cpu = await trio.to_thread.run_sync(_cost, kernel) if isinstance(kernel, int) else (0, 0.0)
        return Listed(
            str(state["umid"]),
            int(state["pid"]),
            kernel,
            str(state["state"]),
            str(state["root"]),
            int(state["memory"]),
            used,
            cpu,
            time.time() - float(state["since"]),
            int(state["boots"]),
            [str(each) for each in state["devices"]],
            [dict(each) for each in state.get("statistics", [])],
            dict(state.get("jail", {})),
            {str(line): str(place) for line, place in dict(state.get("lines", {})).items()},
        )
    except (UmlError, KeyError, TypeError, ValueError):
        return Listed(path.name, layout.read_pid(path), None, "no answer")


def _by_hand(path: Path) -> Listed | None:
    """A kernel that was started by hand; None if the directory is stale."""
    pid = layout.read_pid(path)
    if pid is None or not layout.is_kernel(pid, path.name):
        return None
    used, cpu = _cost(pid)
    with contextlib.suppress(psutil.Error):
        return Listed(
            path.name, pid, pid, BY_HAND, used=used, cpu=cpu, uptime=time.time() - psutil.Process(pid).create_time()
        )
    return None


def _cost(kernel: int) -> tuple[int, float]:
    """Memory in bytes and processor time in seconds of a kernel's process group."""
    used, seconds = 0, 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == kernel:
                used += process.memory_full_info().pss
                times = process.cpu_times()
                seconds += times.user + times.system
    return used, seconds


def duration(seconds: float) -> str:
    """Seconds for a person: the two greatest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{count}{unit}" for count, unit in parts if count]
    return "".join(shown[:2]) or "0s"
