"""A job that a guest has ready before anybody knows its command: its processes are there, and its shell waits."""

from __future__ import annotations

from runtime.machine.control import ControlFilesystem, Job


class Staging:
    """Of one machine: at most one job."""

    def __init__(self, control: ControlFilesystem) -> None:
        self._control = control
        self._staged: tuple[Job, str] | None = None

    async def stage(self, how: str) -> None:
        """Have the guest make ready for the next job, if that will have such streams (`streams_word`) or such a
        terminal (its device in the guest) as `how` says. Returns when only the command is missing."""
        job = Job()
        self._control.stage(job, how)
        self._staged = job, how
        await job.asked.wait()

    def take(self, how: str) -> Job | None:
        """The job that is ready, to be begun; None if there is none of that kind. Another kind of job is let go of."""
        if self._staged is None:
            return None
        (job, its_kind), self._staged = self._staged, None
        if its_kind == how:
            return job
        job.begin()
        return None
