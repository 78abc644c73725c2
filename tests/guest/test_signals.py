"""Signals to `uml run` with pipes: the first goes to the command, the second ends the guest; and sudden death."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.caller import BOUND, Caller, eventually

pytestmark = pytest.mark.guest

PASSED_ON = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
TRAPS = 'for name in INT TERM HUP QUIT; do trap "echo $name" $name; done; echo ready; while :; do sleep 0.1; done'


@pytest.mark.kernels
def test_the_command_hears_and_ends(caller: Caller) -> None:
    with caller.started(
        "--", "sh", "-c", "trap 'echo heard; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"ready\n"
        it.send_signal(signal.SIGINT)
        assert it.stdout.read() == b"heard\n"
        assert it.wait(BOUND) == 9


@pytest.mark.parametrize("number", PASSED_ON)
def test_the_signal_ends_the_command(me: Caller, number: signal.Signals) -> None:
    with me.started("--", "sh", "-c", "echo ready; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(BOUND) == 128 + number


@pytest.mark.kernels
def test_the_second_of_a_kind_ends_the_guest(me: Caller) -> None:
    with me.started("--", "sh", "-c", TRAPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for number in PASSED_ON:
            process.send_signal(number)
            assert process.stdout.readline() == number.name.removeprefix("SIG").encode() + b"\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_does_not_end_is_ended(me: Caller, number: signal.Signals) -> None:
    """By the first signal: nobody has to ask twice."""
    with me.started("--", "sh", "-c", TRAPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(BOUND) == 128 + number


def kernels(caller: Caller) -> list[Path]:
    return list(caller.runtime.glob("umlfs-*/*/pid"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_boots(me: Caller, number: signal.Signals) -> None:
    with me.started("--", "sleep", "1000") as process:
        assert eventually(lambda: bool(kernels(me)))
        process.send_signal(number)
        assert process.wait(BOUND) == 128 + number


def _when_the_directory_is_there(caller: Caller) -> None:
    assert eventually(lambda: bool(list(caller.runtime.iterdir())))


def _when_the_kernel_runs(caller: Caller) -> None:
    assert eventually(lambda: bool(kernels(caller)))


def _at_once(caller: Caller) -> None:
    pass


@pytest.mark.parametrize("moment", [_at_once, _when_the_directory_is_there, _when_the_kernel_runs])
@pytest.mark.kernels
def test_killed_while_it_boots(caller: Caller, moment: Callable[[Caller], None]) -> None:
    """The fixture sees to it that nothing is left."""
    with caller.started("--", "sleep", "1000") as process:
        moment(caller)
        process.kill()
        assert process.wait(BOUND) == -signal.SIGKILL


@pytest.mark.kernels
def test_killed_while_it_runs_and_ends(caller: Caller) -> None:
    for script in ("echo ready; sleep 1000", "echo ready"):
        with caller.started("--", "sh", "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
            process.wait(BOUND)


@pytest.mark.kernels
def test_no_zombies(me: Caller) -> None:
    """The kernel's helpers are orphans when it is gone. Whoever adopts them finds them reaped."""
    script = (
        "import ctypes, os, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "subprocess.run(sys.argv[1:], check=True, stdin=subprocess.DEVNULL)\n"
        "try:\n    while os.waitpid(-1, 0): print('adopted')\n"
        "except ChildProcessError: pass\n"
    )
    done = subprocess.run([me.python, "-c", script, *me.command("run", "--", "true")], capture_output=True, check=True)
    assert done.stdout == b""
    assert os.path.isdir(me.runtime)
