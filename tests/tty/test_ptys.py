"""Reminding the one who has a pty that there is room in it."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from runtime.tty.ptys import remind


@pytest.fixture
def slave() -> Iterator[int]:
    ends = os.openpty()
    yield ends[1]
    for end in ends:
        os.close(end)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that were sent, and are not."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda pid, number: signals.append((pid, number)))
    return signals


def test_the_owner_gets_the_signal_while_it_wants_it(slave: int, sent: list[tuple[int, int]]) -> None:
    remind(slave)
    fcntl.fcntl(slave, fcntl.F_SETOWN, os.getpid())
    remind(slave)
    assert sent == []
    fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)
    remind(slave)
    fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR)
    remind(slave)
    assert sent == [(os.getpid(), signal.SIGIO)]


def test_an_owner_that_has_ended(slave: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", gone)
    fcntl.fcntl(slave, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)
    remind(slave)
    fcntl.fcntl(slave, fcntl.F_SETFL, os.O_RDWR)
