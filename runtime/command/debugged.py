"""A command in a throwaway guest whose kernel is under gdb from its start, and stops before its init."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import trio

from runtime.command.foreground import standard_streams
from runtime.kernels.debugging import gdb_command
from runtime.kernels.kernel import find_kernel
from runtime.machine.machine import Machine, Options
from umlfs.errors import sole


class Debugger:
    """gdb on the caller's terminal, attached to a kernel that has just been started."""

    def __init__(self, kernel: Path) -> None:
        self._kernel = kernel
        self._gdb: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._attached = trio.Event()
        self._ended = trio.Event()

    def attach(self, pid: int) -> None:
        """Stop the kernel process `pid`, and start gdb on it. UmlError without gdb."""
        self._pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        # In our own group: it reads from the terminal, and Ctrl-C is for it.
        self._gdb = subprocess.Popen(gdb_command(pid, self._kernel, before_init=True), process_group=None)
        self._attached.set()

    async def watch(self) -> None:
        """Return when gdb has ended. The kernel goes on then, if it is there."""
        await self._attached.wait()
        assert self._gdb is not None
        await trio.to_thread.run_sync(self._gdb.wait)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)
        self._ended.set()

    async def close(self) -> None:
        """Wait for gdb's end, if it was started."""
        if self._attached.is_set():
            await self._ended.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)


async def run_debugged(
    options: Options,
    command: Sequence[str],
    *,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> int:
    """The exit status of `command`, which reads nothing: the terminal is gdb's. Returns when gdb has ended too.
    UmlError as for `run`."""
    kernel = find_kernel(options.kernel).path
    debugger = Debugger(kernel)
    # It boots when a person lets it.
    held = replace(options, kernel=str(kernel), boot_seconds=float("inf"), on_started=debugger.attach)
    try:
        async with _without_interrupts(), trio.open_nursery() as nursery:
            nursery.start_soon(debugger.watch)
            try:
                with standard_streams() as (_, stdout, stderr):
                    async with Machine(held) as machine:
                        job = machine.start(
                            command,
                            stdout=stdout,
                            stderr=stderr,
                            directory=directory,
                            environment=environment,
                            user=user,
                        )
                        status = await job.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await debugger.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise sole(group) from None
    return status


@contextlib.asynccontextmanager
async def _without_interrupts() -> AsyncIterator[None]:
    """Ctrl-C is not for us."""

    async def drop(signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            pass

    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop, signals)
            yield
            nursery.cancel_scope.cancel()
