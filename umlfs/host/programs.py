"""Programs of others, each in a process group of its own.

Some signal their whole group when they fail (mmdebstrap does): in ours that would be the caller's shell too. And none
outlives the work that it is for: what ends it ends its children with it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Program(subprocess.Popen[bytes]):
    """A program that was started as the leader of a group. Signals to it go to the group."""

    def __init__(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> None:
        """`options` are those of `subprocess.Popen`. OSError if it cannot be started."""
        super().__init__(command, process_group=0, **options)

    def send_signal(self, sig: int) -> None:
        """Send a signal to the group, unless its leader has ended and was waited for."""
        if self.poll() is None:
            try:
                os.killpg(self.pid, sig)
            except ProcessLookupError:
                super().send_signal(sig)


def run_program(
    command: Sequence[str | os.PathLike[str]],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """A program to its end, whatever its exit status. Its group is killed if it takes longer than `timeout` seconds
    (`subprocess.TimeoutExpired`) or this process is interrupted. Without `input` it reads nothing. Blocks."""
    streams = {"stdin": subprocess.DEVNULL if input is None else subprocess.PIPE, **options}
    with Program(command, **streams) as program:
        try:
            stdout, stderr = program.communicate(input, timeout)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(program.args, program.returncode, stdout, stderr)
