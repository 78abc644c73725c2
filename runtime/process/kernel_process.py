"""A process of a kernel that is our child, but was started by a launcher and not by `subprocess`."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from typing import IO, Protocol


class KernelProcess(Protocol):
    """What is to be known of a kernel's process: a `subprocess.Popen` is one."""

    pid: int
    stderr: IO[bytes] | None
    """What it says, if that was to be a pipe."""

    @property
    def returncode(self) -> int | None:
        """Its exit status; -N after signal N, None while it is not reaped."""

    def wait(self, timeout: float | None = None) -> int:
        """Reap it: its `returncode`. Blocks; subprocess.TimeoutExpired after `timeout` seconds."""


class AdoptedProcess:
    """The child with the number `pid`."""

    def __init__(self, pid: int, stderr: IO[bytes] | None = None) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """As of `KernelProcess`."""
        if self.returncode is None:
            self._await_end(timeout)
            self.returncode = self._reap()
        return self.returncode

    def _await_end(self, timeout: float | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                if not select.select([pidfd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
            finally:
                os.close(pidfd)

    def _reap(self) -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return 0  # somebody else has reaped it
