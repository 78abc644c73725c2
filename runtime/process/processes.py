"""Starting and ending the processes of a kernel.

UML makes itself a session and a process group of its own, and is several processes: the kernel, helpers for I/O
and signals, one for each address space of the guest, and one for each terminal, which relays changes of its size
and is a session of its own. Most of them outlive a kernel that is killed alone, and keep its files and locks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.process.processor import shared

_ADDR_NO_RANDOMIZE: Final = 0x0040000
_QUERY: Final = 0xFFFFFFFF
_PR_SET_CHILD_SUBREAPER: Final = 36

REAP_SECONDS: Final = 0.5
"""How long killed processes may take to end until nobody waits for them any more."""

MARK: Final = "UMLFS_KEEPER"
"""The environment variable that marks the processes of a kernel: helpers inherit it, the guest never sees it."""


@contextlib.contextmanager
def fixed_addresses() -> Iterator[None]:
    """Processes that this thread starts meanwhile get no randomised address space.

    The kernel takes the gap between its end and its heap (up to 1 GiB, random) for guest memory that is there but
    reserved: the page structures for it cost the guest up to 16 MiB of its memory, and milliseconds of each
    boot. It costs no safety: the kernel's own image lies at a fixed address anyway. Where a sandbox
    forbids it, nothing changes.
    """
    libc = ctypes.CDLL(None)
    before = libc.personality(ctypes.c_ulong(_QUERY))
    changed = before != -1 and libc.personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE)) != -1
    try:
        yield
    finally:
        if changed:
            libc.personality(ctypes.c_ulong(before))


class LivenessPipe:
    """Tells when the last process of a kernel is gone: a pipe that all of them hold open, and none uses.

    The end of the processes is the end of the file, even of those that we do not know.
    """

    def __init__(self) -> None:
        self._reader, self.held = os.pipe()
        """`held` is for the kernel to inherit."""

    def hand_over(self) -> None:
        """The kernel is started: keep the end only that hears it end."""
        os.close(self.held)

    def is_free(self, timeout: float = 0.0) -> bool:
        """Wait until no process holds the pipe, at most `timeout` seconds; whether that is so."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        os.close(self._reader)


@contextlib.contextmanager
def for_machines() -> Iterator[None]:
    """This process is there for its machines: it goes where their kernels are (`processor.shared`), takes over
    processes whose parent ends meanwhile, and sees to them at the end of the context.

    For a program, not for a library: a kernel's helpers are children of the kernel, which dies before them, and where
    the machine's first process reaps nobody (in many containers) each would stay a zombie for ever. At the end the
    caller must have no children left but such.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with shared():
            yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        _reap()


def _reap() -> None:
    """Reap children that have ended or are about to."""
    deadline = time.monotonic() + REAP_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)


def kill_group(pid: int) -> None:
    """Send SIGKILL to the process group that the kernel `pid` leads. Does not wait.

    A kernel that is a child of this process and has not made its group yet is killed, too. To be called before
    `pid` is reaped: later the number may be another's.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if _parent(pid) == os.getpid():
        os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def kill_marked(value: str) -> int:
    """Send SIGKILL to all processes that started with `MARK` set to `value`; how many. Does not wait."""
    wanted = os.fsencode(f"{MARK}={value}")
    return sum(_kill_if_marked(int(name), wanted) for name in os.listdir("/proc") if name.isdigit())


def _kill_if_marked(pid: int, wanted: bytes) -> bool:
    """By a pidfd, so that the process killed is the very one that was looked at."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        marked = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if marked:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return marked
    except OSError:
        return False
    finally:
        os.close(pidfd)
