"""uml_watchdog's work: a kernel feeds it through its standard input, and when it does not, something is done.

The kernel starts `/usr/bin/uml_watchdog` when its guest opens /dev/watchdog, with a socket pair as standard input and
output. One byte on the output says that it is ready; each byte on the input is a meal; the end of the input ends it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runtime.mconsole.datagrams import reachable
from runtime.mconsole.wire import encode_hang
from runtime.process.processes import kill_group

TIMEOUT_SECONDS: Final = 60.0
"""How long a guest may go without feeding its watchdog."""

GRACE_SECONDS: Final = 1.0
"""How long a hung kernel gets after each interrupt."""

READY: Final = b"\0"
_MEAL: Final = 4096


def guard(on_hang: Callable[[], object], timeout: float, *, food: int = 0, ready: int = 1) -> bool:
    """Say on the descriptor `ready` that we are, then wait until nobody feeds us by `food` any more.

    False if the guest has closed its watchdog. True if nothing came for `timeout` seconds; `on_hang` was called then.
    Blocks all the time. OSError if the kernel is gone at once.
    """
    os.write(ready, READY)
    poll = select.poll()
    poll.register(food, select.POLLIN)
    while poll.poll(timeout * 1000):
        if not os.read(food, _MEAL):
            return False
    on_hang()
    return True


def report_hang(path: Path) -> None:
    """Tell the notification socket at `path` that the guest hangs. OSError if nobody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, reachable(path) as address:
        sender.sendto(encode_hang(), address)


class Victim:
    """The kernel with the number `pid`; ProcessLookupError if there is none."""

    def __init__(self, pid: int) -> None:
        # The descriptor is opened while the kernel surely lives: later the number may be another's.
        self._pid = pid
        self._descriptor = os.pidfd_open(pid)

    def close(self) -> None:
        """Let it be."""
        os.close(self._descriptor)

    def end(self, grace: float = GRACE_SECONDS) -> None:
        """Interrupt it twice, `grace` seconds apart; if it lives on then, kill it and its helpers. Blocks."""
        for _ in range(2):
            self._signal(signal.SIGINT)
            if self._gone(grace):
                return
        with contextlib.suppress(ProcessLookupError):
            # The helpers would keep its files and locks. We may be one of them, started by the kernel: it goes first.
            leads = os.getpgid(self._pid) == self._pid
            self._signal(signal.SIGKILL)
            if leads:
                kill_group(self._pid)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def _gone(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
