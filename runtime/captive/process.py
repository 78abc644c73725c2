"""A command that runs in a captive guest."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import trio

from runtime.captive.streams import CommandInput, CommandOutput
from runtime.machine.control import Job
from runtime.machine.machine import Machine

END_SECONDS: Final = 5.0
"""How long a killed command may take to be gone."""


class Process:
    """From its start to its exit status. A context manager: at the exit the command is killed if it still runs, and
    its streams are closed. One that is used without a context ends with its guest at the latest."""

    def __init__(self, machine: Machine, job: Job, stdin: CommandInput, stdout: CommandOutput, stderr: CommandOutput):
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._machine = machine
        self._job = job

    @property
    def returncode(self) -> int | None:
        """The exit status, 128 + N after signal N; None while it runs."""
        return self._job.returncode

    async def wait(self) -> int:
        """Wait for the exit status. UmlError if the command could not be run, or if its guest ended before it. Output
        that nobody reads holds the command up."""
        return await self._job.wait()

    def signal(self, name: str) -> None:
        """Send `TERM`, `INT` and the like to the command's process group."""
        self._job.signal(name.removeprefix("SIG"))

    def kill(self) -> None:
        """End the command's process group."""
        self._job.signal("KILL")

    async def aclose(self) -> None:
        """End it, if it runs, and wait until it is gone, for some seconds at most."""
        if not self._job.over:
            self.kill()
            await self.stdout.aclose()
            await self.stderr.aclose()
            with trio.move_on_after(END_SECONDS, shield=True):
                await self._job.ended()
        self.forget()

    def forget(self) -> None:
        """Let go of its streams."""
        self.stdin.hang_up()
        self.stdout.finish()
        self.stderr.finish()
        self._machine.retire(self._job)

    async def attend(self) -> None:
        """Wait for the end, whatever it is, and let go: the guest does this beside the program."""
        await self._job.ended()
        self.forget()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
