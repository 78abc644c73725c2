"""What a UML kernel needs of those who hold the near end of its pty."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from typing import Final

FULL: Final = 4096
"""A pty that is full holds at least so many bytes: who has read fewer since the last reminder need not remind."""


def remind(slave: int) -> None:
    """Tell the kernel that inherited `slave` that it can write again; to be called when all it wrote was read.

    A UML kernel that filled a pty waits for SIGIO. It gets one, once, when we read, but the host makes room only a
    little later: if the kernel looks before that, it waits for ever. So does it with its own `pts` channel.
    `slave` must be the descriptor that it inherited, and not another on the same terminal.
    """
    owner = fcntl.fcntl(slave, fcntl.F_GETOWN)
    # The kernel takes this flag back before it lets go of its handler: without it the signal would kill.
    if owner > 0 and fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_ASYNC:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(owner, signal.SIGIO)
