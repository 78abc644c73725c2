"""A command in a throwaway guest: what `uml run` does, as a call."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from runtime.machine.control import InputStream, OutputStream
from runtime.machine.machine import Machine, Options
from runtime.process.event_loop import require_trio
from runtime.tty.caller import DEFAULT_PATH
from runtime.tty.streams import Collector, Literal
from umlfs.errors import UmlError

CAPTURE_MAX: Final = 1 << 30
"""Bytes of output that are gathered in memory, for each of the two streams."""


async def run(
    command: Sequence[str],
    options: Options | None = None,
    *,
    stdin: bytes | InputStream = b"",
    stdout: OutputStream | None = None,
    stderr: OutputStream | None = None,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    timeout: float | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Boot a guest, run `command` in it, and end it again.

    Output is gathered and returned, except of a stream that has a sink. `environment` comes on top of a bare
    one (PATH, HOME, USER); the others are as for `Machine.start`. With `timeout` (seconds, boot included) a
    command that takes longer is ended with its guest: TimeLimitError. With `check` a status other than 0 raises
    `subprocess.CalledProcessError`. A guest that cannot be booted is an UmlError. TypeError for a command that is one
    string: it is a list of words.
    """
    if isinstance(command, str | bytes):
        raise TypeError(f"a command is a list of words, not one string: {shlex.split(os.fsdecode(command))!r}")
    require_trio()
    gathered = Collector(CAPTURE_MAX), Collector(CAPTURE_MAX)
    with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
        async with Machine(options) as machine:
            job = machine.start(
                command,
                stdin=Literal(stdin) if isinstance(stdin, bytes) else stdin,
                stdout=stdout or gathered[0],
                stderr=stderr or gathered[1],
                directory=directory,
                environment={"PATH": DEFAULT_PATH, **(environment or {})},
                user=user,
            )
            status = await job.wait()
    if scope.cancelled_caught:
        raise TimeLimitError(timeout or 0)
    done = subprocess.CompletedProcess(list(command), status, bytes(gathered[0].data), bytes(gathered[1].data))
    if check:
        done.check_returncode()
    return done


class TimeLimitError(UmlError):
    """A guest was given `seconds`, and needed more. Its exit status is that of timeout(1)."""

    STATUS: Final = 124

    def __init__(self, seconds: float) -> None:
        what = f"the command did not end within {seconds:g} s"
        super().__init__(what, "give it more time with --timeout", status=self.STATUS)
        self.seconds = seconds
