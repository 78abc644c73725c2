"""`uml run` on a terminal: the command has one too, of the same size, with job control, and ours is as before."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.guest.caller import BOUND, Caller, eventually

pytestmark = pytest.mark.guest

CTRL_C, CTRL_Z, CTRL_BRACKET = b"\x03", b"\x1a", b"\x1d"
SHELL = "PS1='$((40 + 2))> ' exec sh -i"


class Terminal:
    """A person at a terminal, and a program on it."""

    def __init__(self, command: list[str], rows: int = 30, columns: int = 100) -> None:
        self.ours, theirs = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.ends = [self.ours, theirs]
        self.process = subprocess.Popen(
            ["setsid", "-w", "-c", *command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def see(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until `pattern` is shown, after all that was seen before."""
        deadline = time.monotonic() + BOUND
        while not (found := re.search(pattern, self.shown)):
            assert select.select([self.ours], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self.ours, 65536)
        self.shown = self.shown[found.end() :]
        return found

    def press(self, key: bytes, pattern: bytes) -> None:
        """Type `key` until `pattern` is shown: a signal that comes while a program starts another may miss both, and
        a UML kernel under load may not notice what is typed until more comes."""
        deadline = time.monotonic() + BOUND
        while not re.search(pattern, self.shown) and time.monotonic() < deadline:
            self.type(key)
            while not re.search(pattern, self.shown) and select.select([self.ours], [], [], 2)[0]:
                self.shown += os.read(self.ours, 65536)
        self.see(pattern)

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed."""
        while self.ends:
            os.close(self.ends.pop())

    def end(self) -> int:
        """Wait for the end of the program: its exit status. The terminal must be as it was."""
        status = self.process.wait(BOUND)
        assert termios.tcgetattr(self.theirs) == self.before
        return status


@contextlib.contextmanager
def on_terminal(command: list[str]) -> Iterator[Terminal]:
    terminal = Terminal(command)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        terminal.hang_up()


def test_a_shell_with_job_control(caller: Caller) -> None:
    with on_terminal(caller.command("run", "--", "sh", "-c", SHELL)) as it:
        it.see(rb"42> ")
        it.type(b"stty size; tty; tty </dev/tty; echo $TERM\n")
        it.see(rb"30 100\r\n/dev/tty1\r\n/dev/tty\r\n\w+\r\n42> ")
        it.resize(24, 81)
        it.press(b"until [ \"$(stty size)\" = '24 81' ]; do sleep 0.1; done; echo resi''zed\n", rb"resized\r\n42> ")
        # One process: of a shell and the child it has by vfork, only the child stops, and nobody ever wakes it.
        it.type(b"""sh -c 'trap "echo aw""ake" CONT; echo sta""rted; while :; do :; done'\n""")
        it.see(rb"started\r\n")
        it.press(CTRL_Z, rb"42> ")
        it.type(b"jobs; fg\n")
        it.see(rb"Stopped.*\r\n")
        it.see(rb"awake\r\n")  # and so in the foreground again
        it.type(CTRL_C)
        it.see(rb"42> ")
        it.type(b"exit 5\n")
        assert it.end() == 5


def test_no_command_is_the_login_shell(me: Caller) -> None:
    with on_terminal(me.command("run", "--env", "HOME=/nowhere")) as it:
        it.see(rb"[#$>] ")
        it.type(b"echo $((6 * 7)) $0 $(id -u)\n")
        it.see(rb"42 /\S+ 0\r\n")
        it.see(rb"[#$>] ")
        it.type(b"\x04")
        assert it.end() == 0


def test_much_to_show_and_much_to_read(me: Caller) -> None:
    """The kernel stops writing, or reading, for good where it is not looked after."""
    script = "head -c 1000000 /dev/zero | tr '\\0' x; stty -icanon -echo; echo do''ne; head -c 4000 | wc -c"
    with on_terminal(me.command("run", "--", "sh", "-c", script)) as it:
        assert it.see(rb"done\r\n").string.count(b"x") == 1_000_000
        for _ in range(4):
            it.type(b"y" * 1000)
        it.see(rb"4000\r\n")
        assert it.end() == 0


def test_ctrl_c_reaches_the_command(me: Caller) -> None:
    with on_terminal(me.command("run", "--", "sh", "-c", "echo ready; exec sleep 1000")) as it:
        it.see(rb"ready\r\n")
        it.type(CTRL_C)
        assert it.end() == 128 + signal.SIGINT


def test_a_second_ctrl_c_ends_the_guest(caller: Caller) -> None:
    with on_terminal(caller.command("run", "--", "sh", "-c", "trap '' INT; echo ready; sleep 1000")) as it:
        it.see(rb"ready\r\n")
        it.type(CTRL_C)
        it.see(rb"\^C")
        time.sleep(0.4)  # longer than a command gets to answer
        it.type(CTRL_C)
        assert it.end() == 128 + signal.SIGINT


def test_three_ctrl_brackets_end_the_guest(me: Caller) -> None:
    with on_terminal(me.command("run", "--", "sh", "-c", "echo ready; exec sleep 1000")) as it:
        it.see(rb"ready\r\n")
        it.type(CTRL_BRACKET * 3)
        assert it.end() == 128 + signal.SIGINT


def test_the_terminal_goes_away(me: Caller) -> None:
    """Even a command that does not care is gone soon. The fixture sees to it that nothing is left."""
    script = "trap '' HUP; echo ready; while :; do sleep 0.1; done"
    with on_terminal(me.command("run", "--", "sh", "-c", script)) as it:
        it.see(rb"ready\r\n")
        it.hang_up()
        assert it.process.wait(BOUND) == 128 + signal.SIGHUP


def test_a_guest_that_dies_leaves_the_terminal_as_it_was(me: Caller) -> None:
    with on_terminal(me.command("run", "--", "sh", "-c", "echo ready; echo c >/proc/sysrq-trigger")) as it:
        it.see(rb"uml: the guest ended by itself")
        assert it.end() == 125


def test_programs_on_terminals_of_their_own(me: Caller) -> None:
    """/dev/ptmx and /dev/pts."""
    script = "import os, pty\npid, fd = pty.fork()\nif not pid: os.execlp('tty', 'tty')\nprint(os.read(fd, 99))"
    assert me.output("--", me.python, "-c", script) == "b'/dev/pts/0\\r\\n'\n"


def test_output_on_a_terminal_alone(me: Caller) -> None:
    """With input from elsewhere the command has pipes, and its output still comes out readable."""
    with on_terminal(["sh", "-c", 'echo in | "$@"', "sh", *me.command("run", "--", "sh", "-c", "cat; tty")]) as it:
        it.see(rb"in\r\nnot a tty\r\n")
        assert it.end() == 1


BASH = ["bash", "--norc", "--noprofile", "-i"]


def test_in_the_background_of_a_shell(me: Caller) -> None:
    """It asks nothing of the terminal that it is not on, and what it would say is in the file."""
    with on_terminal(BASH) as it:
        line = shlex.join(me.command("run", "--", "sh", "-c", "echo out; echo error >&2; exit 3"))
        it.type(f"{line} >{me.directory}/log 2>&1 & wait $!; echo sta''tus=$?; sort {me.directory}/log\n".encode())
        it.see(rb"status=3\r\nerror\r\nout\r\n")
        it.type(b"jobs -s; exit 5\n")
        assert it.end() == 5
        assert b"topped" not in it.shown


@pytest.mark.parametrize("redirection", [">{0}/log 2>&1", "2>{0}/log", "</dev/null 2>{0}/log"])
def test_the_shell_of_a_background_job_goes_away(me: Caller, redirection: str) -> None:
    """The guest ends with it, and says nothing of its own insides. The fixture sees to it that nothing is left."""
    log = me.directory / "log"
    with on_terminal(BASH) as it:
        line = shlex.join(me.command("run", "--", "sh", "-c", "echo up >&2; exec sleep 1000"))
        it.type(f"{line} {redirection.format(me.directory)} &\n".encode())
        it.see(rb"\[1\] (\d+)\r\n")
        if "</dev/null" in redirection or redirection.startswith(">"):
            assert eventually(lambda: log.exists() and "up" in log.read_text())
        it.hang_up()
        it.process.wait(BOUND)
    assert eventually(lambda: not me.left())
    said = log.read_text() if log.exists() else ""  # the shell may go before it has begun the job
    assert "internal error" not in said
    assert "Traceback" not in said
