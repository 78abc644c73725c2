"""Impatience, sizes and the raw state of a terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pytest

from runtime.tty.terminal import ANSWER_SECONDS, ESCAPE_SECONDS, Impatience, copy_size, raw

LONG, SHORT = ANSWER_SECONDS * 2, ANSWER_SECONDS / 2
INTERRUPT, ESCAPE = b"\x03", b"\x1d"


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_one_interrupt_is_the_commands() -> None:
    impatience = Impatience()
    assert not impatience.typed(b"ls\r" + INTERRUPT, 0)
    assert not impatience.typed(b"", 10)


def test_a_second_interrupt_without_an_answer() -> None:
    impatience = Impatience()
    assert not impatience.typed(INTERRUPT, 5)
    for echo in (b"^", b"C", b"\r\n"):
        impatience.shown(echo)
    assert impatience.typed(INTERRUPT, 5 + LONG)


@pytest.mark.parametrize("now", [0.0, 5.0])
def test_a_key_held_down_is_no_impatience(now: float) -> None:
    impatience = Impatience()
    assert not impatience.typed(INTERRUPT * 5, now)
    assert not impatience.typed(INTERRUPT, now + SHORT)


def test_an_answer_or_another_key_between() -> None:
    impatience = Impatience()
    assert not impatience.typed(INTERRUPT, 0)
    impatience.shown(b"^C\r\n$ ")
    assert not impatience.typed(INTERRUPT, LONG)
    assert not impatience.typed(b"x" + INTERRUPT, 3 * LONG)
    assert impatience.typed(INTERRUPT, 5 * LONG)


def test_three_escapes_within_a_second() -> None:
    impatience = Impatience()
    assert impatience.typed(ESCAPE * 3, 0)
    assert not impatience.typed(b"x", 0)
    assert not impatience.typed(ESCAPE * 2, 1)
    assert not impatience.typed(b"x" + ESCAPE, 1)
    assert not impatience.typed(ESCAPE, 1)
    assert not impatience.typed(ESCAPE, 1 + 2 * ESCAPE_SECONDS)
    assert not impatience.typed(ESCAPE, 1 + 2 * ESCAPE_SECONDS)
    assert impatience.typed(ESCAPE, 1 + 2 * ESCAPE_SECONDS)


def test_raw_state_is_taken_back(terminal: int) -> None:
    before = termios.tcgetattr(terminal)

    def interrupted() -> None:
        with raw(terminal):
            assert not termios.tcgetattr(terminal)[3] & termios.ICANON
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert termios.tcgetattr(terminal) == before


def test_a_terminal_that_is_gone() -> None:
    ours, theirs = os.openpty()
    with raw(theirs):
        os.close(ours)
    os.close(theirs)


def test_sizes(terminal: int) -> None:
    other, line = os.openpty()
    size = struct.pack("HHHH", 12, 34, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    copy_size(terminal, line)
    assert fcntl.ioctl(line, termios.TIOCGWINSZ, bytes(8)) == size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, bytes(8))
    copy_size(terminal, line)  # one that has none gives none
    assert fcntl.ioctl(line, termios.TIOCGWINSZ, bytes(8)) == size
    os.close(other)
    os.close(line)
