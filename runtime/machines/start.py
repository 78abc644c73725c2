"""Booting a machine, in this process or in one of its own."""

from __future__ import annotations

import trio

from runtime.machines.supervisor import Ready, Supervisor
from runtime.process import background, processes
from runtime.process.open_files import raise_limit


def in_background(supervisor: Supervisor) -> int:
    """Boot in a process of its own, whose number is returned when the machine answers. UmlError if it does not.

    To be called while this process has no other thread and no event loop.
    """

    def work(ready: Ready) -> None:
        raise_limit()
        with processes.for_machines():
            trio.run(supervisor.run, _once(ready))

    return background.start(work, directory=None)


def in_foreground(supervisor: Supervisor, ready: Ready) -> int:
    """Boot in this process; the kernel's exit status when the machine has ended. UmlError."""
    raise_limit()
    with processes.for_machines():
        return trio.run(supervisor.run, ready)


def _once(ready: Ready) -> Ready:
    """`ready`, which a machine that boots again calls again, for the first time only."""
    called = False

    def first() -> None:
        nonlocal called
        if not called:
            called = True
            ready()

    return first
