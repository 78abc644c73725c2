"""What the kernel does with a pty given as a console: sizes, signals and job control."""

from __future__ import annotations

import os
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.process.keeper import Keeper

pytestmark = pytest.mark.guest

Arguments = Callable[..., list[str]]

SHELL = "busybox mknod /tty1 c 4 1; setsid -c {} <>/tty1 >&0 2>&1; exec poweroff -f\n"


class Terminal:
    """A guest whose first console is the far end of a pty; this is the near one."""

    def __init__(self, keeper: Keeper, arguments: list[str], master: int, slave: int) -> None:
        self.master, self.slave, self.seen = master, slave, b""
        termios.tcsetwinsize(master, (33, 99))
        self.kernel = keeper.spawn([*arguments, f"con1=fd:{slave}"], output=subprocess.DEVNULL, pass_fds=[slave])

    def expect(self, text: bytes) -> None:
        """Read until `text` comes."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, self.seen
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


Start = Callable[[str], Terminal]


@pytest.fixture
def start(kernel_arguments: Arguments, tmp_path: Path) -> Iterator[Start]:
    """Starts a guest whose terminal has that command of the shell on it."""
    master, slave = os.openpty()
    with Keeper(tmp_path) as keeper:
        yield lambda command: Terminal(keeper, kernel_arguments(SHELL.format(command)), master, slave)
    os.close(master)
    os.close(slave)


def test_size_at_open_and_when_it_changes(start: Start) -> None:
    script = 'stty size; trap "stty size; exit" WINCH; echo ready; sleep 1000 & while :; do wait; done'
    terminal = start(f"sh -c '{script}'")
    terminal.expect(b"33 99\r\n")
    terminal.expect(b"ready")
    termios.tcsetwinsize(terminal.master, (44, 120))
    terminal.expect(b"44 120\r\n")


def test_signals_and_job_control(start: Start) -> None:
    terminal = start("sh -i")
    terminal.expect(b"# ")
    terminal.type(b"sh -c 'echo st''arted; exec sleep 1000'\r")
    terminal.expect(b"started")
    terminal.type(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.type(b"kill %1; sh -c 'echo st''arted; exec sleep 1000'\r")
    terminal.expect(b"started")
    terminal.type(b"\x03")
    terminal.expect(b"# ")
    terminal.type(b"echo status $?\r")
    terminal.expect(b"status 130")


def test_end_of_the_guest_frees_the_terminal(start: Start) -> None:
    terminal = start("true")
    assert terminal.kernel.wait(30) == 0
    assert termios.tcgetwinsize(terminal.slave) == (33, 99)
