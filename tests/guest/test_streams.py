"""The three streams of a command: separate, binary, streaming, and ending as they should."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.guest.caller import BOUND, Caller

pytestmark = pytest.mark.guest

MIB = 1 << 20


@pytest.mark.kernels
def test_big_binary_streams(caller: Caller, long: bool) -> None:
    """A tar file in, through tar in the guest, and out again; and the sum of what the guest got."""
    size = (100 if long else 24) * MIB
    top = caller.directory / "in"
    top.mkdir()
    (top / "random").write_bytes(random.Random(1).randbytes(size))
    archive = caller.directory / "in.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(top, "in")
    script = "cd /tmp && tee >(sha256sum >&2) | tar x && cat in/random"
    with archive.open("rb") as stdin, (caller.directory / "out").open("wb") as stdout:
        done = caller.run("--mem", "512M", "--", "bash", "-c", script, stdin=stdin, stdout=stdout)
    assert done.returncode == 0
    assert done.stderr.decode().split()[0] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (caller.directory / "out").read_bytes() == (top / "random").read_bytes()


def test_pipes_both_ways(me: Caller) -> None:
    data = random.Random(2).randbytes(8 * MIB)
    done = me.run("--", "cat", input=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


def test_streaming_while_it_runs(caller: Caller) -> None:
    """Each line is answered before the next is sent, and the end of the input ends the command."""
    script = 'while read -r line; do echo "out $line"; echo "err $line" >&2; done; echo end; exit 3'
    with caller.started("--", "sh", "-c", script) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == b"out " + line
            assert process.stderr.readline() == b"err " + line
        process.stdin.close()
        assert process.stdout.read() == b"end\n"
        assert process.wait(BOUND) == 3


@pytest.mark.kernels
def test_the_reader_goes_away(caller: Caller) -> None:
    with caller.started("--", "yes") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(BOUND) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_every_kind_of_input(me: Caller) -> None:
    file = me.directory / "file"
    file.write_bytes(b"contents")
    with file.open("rb") as stdin:
        stdin.seek(3)
        assert me.output("--", "cat", "/dev/stdin", stdin=stdin) == "tents"
    assert me.output("--", "sh", "-c", "readlink /dev/fd/0; wc -c", stdin=subprocess.DEVNULL) == "/dev/null\n0\n"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"by socket")
        ours.shutdown(socket.SHUT_WR)
        assert me.output("--", "cat", stdin=theirs) == "by socket"
    with me.started("--", "cat") as process:
        assert process.communicate(b"", BOUND) == (b"", b"")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors(me: Caller, closed: str) -> None:
    line = ["sh", "-c", f'"$@" {closed}', "sh", *me.command("run", "--", "sh", "-c", "echo out; cat; echo err >&2")]
    done = subprocess.run(line, input=b"in\n", capture_output=True, timeout=BOUND, check=False)
    assert done.returncode == 0
    assert done.stdout == (b"" if "1" in closed else b"out\n" if "0" in closed else b"out\nin\n")
    assert done.stderr == (b"" if "2" in closed else b"err\n")


def test_a_full_disk_is_no_success(caller: Caller) -> None:
    with Path("/dev/full").open("wb") as full:
        status, line = caller.error("--", "echo", "hello", stdout=full)
    assert (status, line) == (125, "standard output: No space left on device; not all that the command said is kept")


def test_both_streams_interleaved(me: Caller) -> None:
    """Apart from each other nothing is lost; together the order is kept."""
    script = "import os\nfor i in range(1000): os.write(1, b'%d\\n' % i); os.write(2, b'%d\\n' % -i)"
    done = me.run("--", me.python, "-c", script)
    assert done.stdout == b"".join(b"%d\n" % i for i in range(1000))
    assert done.stderr == b"".join(b"%d\n" % -i for i in range(1000))
    done = me.run("--", me.python, "-c", script, stderr=subprocess.STDOUT)
    assert done.stdout == b"".join(b"%d\n%d\n" % (i, -i) for i in range(1000))


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & echo started",
        "setsid sh -c 'trap : HUP TERM INT; sleep 1000' & echo started",
        "exec 2>&-; echo started; exec >&-; true",
        "(sleep 0.1; echo too late) & echo started",
    ],
)
@pytest.mark.kernels
def test_what_is_left_running_ends(me: Caller, script: str) -> None:
    assert me.output("--", "sh", "-c", script) == "started\n"


@pytest.mark.kernels
def test_several_at_once(caller: Caller) -> None:
    commands = [caller.command("run", "--mem", "64M", "--", "sh", "-c", f"cat; echo {number}") for number in range(4)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, **streams) for command in commands]  # type: ignore[call-overload]
    for number, process in enumerate(running):
        assert process.communicate(b"in ", BOUND) == (b"in %d\n" % number, b"")
        assert process.returncode == 0
