"""Ending and restarting a machine in order: its guest does it, told in the way that its process 1 understands."""

from __future__ import annotations

import math
from typing import Final

import trio

from runtime.machine.machine import Machine
from runtime.machine.script import BUSYBOX
from runtime.tty.caller import DEFAULT_PATH
from umlfs.errors import UmlError

AGAIN_SECONDS: Final = 5.0
"""After so long a guest that has not ended is told again: an init that is just starting may not have heard."""

# systemd takes SIGRTMIN + 4 and + 5 for it, our own process 1 the signals of busybox's init. Others have programs.
_SCRIPT: Final = """\
if [ -d /run/systemd/system ]; then
    kill -{systemd} 1
elif grep -q '^{busybox}' /proc/1/cmdline; then
    kill -s {signal} 1
else
    exec /sbin/{program}
fi
"""
_HOW: Final = {
    "halt": {"systemd": 38, "signal": "USR2", "program": "poweroff"},
    "reboot": {"systemd": 39, "signal": "TERM", "program": "reboot"},
}
ACTIONS: Final = tuple(_HOW)


def script(action: str) -> str:
    """What a guest's shell does to `halt` or `reboot`."""
    return _SCRIPT.format(**_HOW[action], busybox=BUSYBOX)


async def shut_down(machine: Machine, action: str, seconds: float = math.inf) -> None:
    """Have the guest `halt` or `reboot`; returns when its kernel has ended. UmlError if that takes longer."""
    if not machine.has_agent:
        raise machine.no_agent()
    with trio.move_on_after(seconds):
        while True:
            with trio.move_on_after(AGAIN_SECONDS):
                job = machine.start([BUSYBOX, "sh", "-c", script(action)], environment={"PATH": DEFAULT_PATH})
                try:
                    await machine.ended()
                    return
                finally:
                    machine.retire(job)
    raise UmlError(f"the guest did not {action} within {seconds:g} s", "--now does it without the guest's help")
