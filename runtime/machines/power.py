"""Ending and restarting a machine in order: its guest does it, told in the way that its process 1 understands."""

from __future__ import annotations

import contextlib
import math
from typing import Final

import trio

from runtime.machine.control import Job
from runtime.machine.machine import Machine
from runtime.machine.script import BUSYBOX, SAID_MAX
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from umlfs.errors import UmlError

OVERALL: Final = 10
"""A guest that keeps making progress gets so many times the seconds without it at most."""
NO_PROGRAM: Final = 127
"""The exit status of a shell that does not find the program."""
LOOK_SECONDS: Final = 0.5

# systemd takes SIGRTMIN + 4 and + 5 for it, our own process 1 the signals of busybox's init. Others have programs.
# Busybox's init waits for its signals by sigtimedwait, which /proc does not show: once it handles SIGTSTP it does.
# An init that is just starting would not hear a signal: it is sent once it is handled (or blocked, as for a signalfd).
_SCRIPT: Final = """\
until_heard() {{
    while :; do
        while read -r name mask; do
            case $name in
            SigBlk: | SigCgt:)
                for number; do
                    [ $((0x$mask >> number - 1 & 1)) = 0 ] || return
                done
                ;;
            esac
        done </proc/1/status
        sleep 0.2
    done
}}
if [ -d /run/systemd/system ] || [ "$(cat /proc/1/comm)" = systemd ]; then
    until_heard {systemd}
    kill -{systemd} 1
elif case "$(readlink /proc/1/exe) $(cat /proc/1/comm)" in
    "{busybox} "* | */busybox" init" | */busybox" linuxrc") ;;
    *) false ;;
    esac; then
    until_heard {number} 20
    kill -s {signal} 1
else
    exec /sbin/{program}
fi
"""
_HOW: Final = {
    "halt": {"systemd": 38, "signal": "USR2", "number": 12, "program": "poweroff"},
    "reboot": {"systemd": 39, "signal": "TERM", "number": 15, "program": "reboot"},
}
ACTIONS: Final = tuple(_HOW)


class StuckError(UmlError):
    """A guest that was asked did not do it, and does nothing else."""


def script(action: str) -> str:
    """What a guest's shell does to `halt` or `reboot`."""
    return _SCRIPT.format(**_HOW[action], busybox=BUSYBOX)


async def shut_down(machine: Machine, action: str, seconds: float = math.inf) -> None:
    """Have the guest `halt` or `reboot`; returns when its kernel has ended. UmlError if it cannot be asked,
    StuckError if it does nothing for `seconds`: says nothing, and uses no device."""
    if not machine.has_agent:
        raise machine.no_agent()
    said = Collector(SAID_MAX)
    # Asked once, and not forgotten before the end: its streams are answered as long as the guest reads them.
    job = machine.start([BUSYBOX, "sh", "-c", script(action)], stderr=said, environment={"PATH": DEFAULT_PATH})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_idle, machine, seconds, nursery.cancel_scope)
        nursery.start_soon(_until_missing, job, nursery.cancel_scope)
        await machine.ended()
        nursery.cancel_scope.cancel()
    if machine.returncode is None:
        why = said.data.decode(errors="replace").strip().partition("\n")[0] if job.returncode else ""
        if job.returncode == NO_PROGRAM:
            raise StuckError(f"the guest has no program for it: {why}")
        raise StuckError(f"the guest did not {action} within {seconds:g} s{f' ({why})' if why else ''}")


async def _until_idle(machine: Machine, seconds: float, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the guest has done nothing for `seconds`, or anything for far too long."""
    with trio.move_on_after(seconds * OVERALL):
        since, before = trio.current_time(), _work(machine)
        while trio.current_time() - since < seconds:
            await trio.sleep(min(LOOK_SECONDS, seconds))
            if (now := _work(machine)) != before:
                since, before = trio.current_time(), now
    scope.cancel()


def _work(machine: Machine) -> tuple[object, ...]:
    """What changes with all progress of the guest: the lines that its kernel said, and what its devices did."""
    return (machine.lines_said, *(device.statistics.requests for device in machine.stores))


async def _until_missing(job: Job, scope: trio.CancelScope) -> None:
    """Cancel `scope` if the guest's root has no program that would do it."""
    with contextlib.suppress(UmlError):
        if await job.wait() == NO_PROGRAM:
            scope.cancel()
