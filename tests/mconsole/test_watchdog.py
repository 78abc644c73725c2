"""uml_watchdog: ours and Debian's are told the same and do the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.mconsole.watchdog import Victim
from runtime.mconsole.wire import DATAGRAM_MAX, encode_hang
from tests import needs
from tests.ordinary import ROOT

LONG = 60
OURS = [sys.executable, "-P", "-c", "from runtime.cli.historical.watchdog import main; main()"]


@contextmanager
def started(*arguments: str, debian: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A watchdog and the kernel's end of its standard input and output."""
    ours, theirs = socket.socketpair()
    command = [str(needs.path("/usr/bin/uml_watchdog"))] if debian else OURS
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with ours, theirs:
        ours.settimeout(LONG)
        streams = {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
        with subprocess.Popen([*command, *arguments], env=environment, **streams) as process:  # type: ignore[call-overload]
            theirs.close()
            try:
                yield process, ours
            finally:
                process.kill()


@contextmanager
def kernel(script: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A process in the place of a kernel: leader of a group, with a helper that outlives it."""
    code = f"import os, signal, time\nif os.fork():\n {script or 'pass'}\nprint(flush=True)\ntime.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"\n\n"
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.interop
@pytest.mark.parametrize("debian", [False, True])
def test_fed_and_closed(debian: bool) -> None:
    with kernel() as victim:
        for arguments in (["-pid", str(victim.pid)], ["-mconsole", "/nowhere"], ["-pid", str(victim.pid), "more"]):
            with started(*arguments, debian=debian) as (process, line):
                assert line.recv(10) == b"\0"
                for _ in range(3):
                    line.sendall(b"\n")
                line.shutdown(socket.SHUT_WR)
                assert process.wait(LONG) == 0
        assert victim.poll() is None


@pytest.mark.interop
@pytest.mark.parametrize("debian", [False, True])
@pytest.mark.parametrize(
    "arguments", [[], ["-pid"], ["-pid", "x"], ["-x", "1"], ["-pid", "99999999"], ["-mconsole"], ["word"]]
)
def test_wrong_usage(debian: bool, arguments: list[str]) -> None:
    with started(*arguments, debian=debian) as (process, line):
        assert process.wait(LONG) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert line.recv(10) == b""


def test_a_hang_is_reported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(LONG)
        notify.bind(str(tmp_path / "notify"))
        with started("-mconsole", str(tmp_path / "notify"), "--timeout", "0.05") as (process, line):
            assert line.recv(10) == b"\0"
            assert notify.recv(DATAGRAM_MAX) == encode_hang()
            assert process.wait(LONG) == 1


def test_nobody_to_report_to(tmp_path: Path) -> None:
    with started("-mconsole", str(tmp_path / "none"), "--timeout", "0.05") as (process, _):
        assert process.wait(LONG) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b"sendto: No such file or directory\n"


def test_a_hung_kernel_is_interrupted() -> None:
    with kernel() as victim:
        with started("-pid", str(victim.pid), "--timeout", "0.05") as (process, _):
            assert process.wait(LONG) == 1
        assert victim.wait(LONG) == -signal.SIGINT
        os.killpg(victim.pid, signal.SIGKILL)


def test_a_kernel_that_ignores_it_is_killed_with_its_helpers() -> None:
    with kernel("signal.signal(signal.SIGINT, lambda *_: os.write(1, b'!'))") as victim:
        end = Victim(victim.pid)
        end.end(grace=0.2)
        end.close()
        assert victim.wait(LONG) == -signal.SIGKILL
        assert victim.stdout is not None
        # The end of the pipe: the helper is gone, too.
        assert victim.stdout.read() == b"!!"


def test_victims_must_live() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(ProcessLookupError):
        Victim(gone.pid)
