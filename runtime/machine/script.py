"""What a machine itself has its guest do: small shell scripts, run by the agent's own busybox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import trio

from runtime.guest import HERE
from runtime.machine.control import Job, OutputStream
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector
from umlfs.errors import UmlError

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


class RunsJobs(Protocol):
    """A machine, as far as scripts need one."""

    def start(
        self,
        command: Sequence[str],
        *,
        stderr: OutputStream | None = None,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Job:
        """See `runtime.machine.machine.Machine.start`."""

    def retire(self, job: Job) -> None:
        """Forget a job that is over."""


async def run_script(
    machine: RunsJobs, script: str, arguments: Sequence[str] = (), *, seconds: float = SECONDS
) -> None:
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
