"""What is shown of long work."""

from __future__ import annotations

import io
import sys

import pytest

from runtime.cli import activity as module
from runtime.cli.activity import activity


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    now = [0.0]
    monkeypatch.setattr(module, "now", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    return now


def test_a_terminal_sees_what_takes_long(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with activity("copy", after=1.0) as show:
        clock[0] = 0.9
        show.text("1 file")
        assert terminal.getvalue() == ""
        clock[0] = 1.1
        show.text("[2] files\x1b")
    assert "copy: [2] files\\x1b" in terminal.getvalue()
    assert "1 file" not in terminal.getvalue()


def test_a_terminal_sees_what_is_long_from_the_start(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with activity("convert"):
        pass
    assert "convert" in terminal.getvalue()


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with activity("convert") as show:
        show.count(1, "files")
    assert pipe.getvalue() == ""
