"""What a machine itself has its guest do: small shell scripts, run by the agent's own busybox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from runtime.guest import HERE
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from umlfs.errors import UmlError

if TYPE_CHECKING:
    from runtime.machine.machine import Machine

BUSYBOX: Final = f"{HERE}/busybox"
SECONDS: Final = 8.0
"""How long the guest may take: less than whoever asks at a management console waits."""
SAID_MAX: Final = 4096
"""Bytes of errors that are kept of it."""


class ScriptError(UmlError):
    """A script failed in the guest."""

    def __init__(self, what: str, returncode: int) -> None:
        super().__init__(what)
        self.returncode = returncode


async def run(machine: Machine, script: str, arguments: Sequence[str] = (), *, seconds: float = SECONDS) -> None:
    """Run `script` in the guest, which must take several commands at a time, and wait for its end.

    ScriptError with the first line of what it complained of, if it fails; UmlError if it takes longer than `seconds`:
    it may go on.
    """
    said = Collector(SAID_MAX)
    job = machine.start(
        [BUSYBOX, "sh", "-c", script, "sh", *arguments],
        stderr=said,
        directory="/",
        environment={"PATH": DEFAULT_PATH},
    )
    try:
        with trio.move_on_after(seconds) as limit:
            status = await job.wait()
    finally:
        machine.retire(job)
    if limit.cancelled_caught:
        raise UmlError(f"the guest did not do it within {seconds:g} s", "it may do so later")
    if status:
        why = said.data.decode(errors="replace").strip().partition("\n")[0]
        raise ScriptError(why or f"exit status {status}", status)
