"""Waiting until the guest of a machine is up: its init has started what it is to start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from runtime import guest
from runtime.machine.script import BUSYBOX
from runtime.machines.client import Run
from umlfs.errors import UmlError

UP: Final = frozenset({"running", "degraded"})
DEGRADED: Final = "degraded"
"""What systemd calls a system of which something did not start."""
_WORD_MAX: Final = 4096


async def wait_until_up(machine: Path) -> str:
    """Wait until the guest of the machine with the directory `machine` is up; `running`, or `DEGRADED`.

    Takes as long as the guest's init does. SIGINT and SIGTERM end the waiting, not the machine. UmlError if the machine
    ends meanwhile, or its init gives up.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        words = [BUSYBOX, "sh", "-c", guest.script("up.sh"), "sh"]
        status = await Run(machine).run(words, streams=(null, writing, null), directory="/")
        state = _said(reading)
    finally:
        for fd in (null, reading, writing):
            os.close(fd)
    name = machine.name
    if status > 128:
        way_out = f"it goes on: 'uml logs -f {name}' shows what it says"
        raise UmlError(f"{name}: not waited for any longer", way_out, status=status)
    if state not in UP:
        raise UmlError(f"{name}: its init gave up ({state or status})", f"'uml console {name}' shows what it says")
    return state


def _said(reading: int) -> str:
    try:
        return os.read(reading, _WORD_MAX).decode(errors="replace").strip()
    except BlockingIOError:
        return ""
