"""Reminding the one who has a pty that there is room in it."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from runtime.ptys import remind


@pytest.fixture
def slave() -> Iterator[int]:
    ends = os.openpty()
    yield ends[1]
    for end in ends:
        os.close(end)


def test_the_owner_gets_the_signal(slave: int) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    try:
        fcntl.fcntl(slave, fcntl.F_SETOWN, os.getpid())
        remind(slave)
        assert signal.SIGIO not in signal.sigpending()
        fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)
        remind(slave)
        assert signal.sigtimedwait({signal.SIGIO}, 10) is not None
        fcntl.fcntl(slave, fcntl.F_SETOWN, 0)
        remind(slave)
        assert signal.SIGIO not in signal.sigpending()
    finally:
        fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_nobody_has_it(slave: int) -> None:
    remind(slave)
