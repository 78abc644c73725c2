"""A command done by a standby is as one done by its caller; whatever is not just so, the caller does."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.standby import finding
from tests.guest.caller import BOUND, eventually
from tests.ordinary import ROOT
from tests.standby.listening import listens

CALL = (
    "import sys; from runtime.standby.client import hand_over; status = hand_over(sys.argv[1:])\n"
    "print('alone') if status is None else None; sys.exit(status or 0)"
)


class Host:
    """A process with a standby, and those who call that."""

    def __init__(self, runtime: Path) -> None:
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
        self.directory = runtime / "umlfs-kept"
        self.path = self.directory / f"image{finding.suffix()}"
        self.orphan = self.directory / "image"
        self.process: subprocess.Popen[str]

    def start(self) -> None:
        self.directory.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as forsaken:
            forsaken.bind(str(self.orphan))
        command = [sys.executable, "-m", "tests.standby.host", str(self.path), str(self.orphan)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        assert eventually(lambda: listens(self.path))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", CALL, "ls", *words]

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """What a client that is started with these options gets."""
        streams: dict[str, Any] = {"env": self.environment, "capture_output": True, "text": True, **options}
        return subprocess.run(self.command(*words), check=False, timeout=BOUND, **streams)

    def report(self, **options: Any) -> Any:
        done = self.call("tell", **options)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    @contextmanager
    def waiting(self) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A client whose command waits, and the number of the process that does."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(self.command("wait"), env=self.environment, **pipes) as client:
            assert client.stdout is not None
            try:
                yield client, int(client.stdout.readline())
            finally:
                client.kill()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.communicate()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        assert eventually(lambda: not self.directory.exists())


@contextmanager
def hosted(runtime: Path) -> Iterator[Host]:
    host = Host(runtime)
    host.start()
    try:
        yield host
    finally:
        host.end()


@pytest.fixture(scope="module")
def host(short_directory: Path) -> Iterator[Host]:
    with hosted(short_directory) as found:
        yield found


def state(pid: int) -> str:
    """As in ps(1); empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_it_has_what_its_caller_has(host: Host, tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def prepare() -> None:
        os.umask(0o027)
        os.nice(3)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (123, hard))

    environment = {**host.environment, "COLOUR": "grün"}
    del environment["HOME"]
    report = host.report(preexec_fn=prepare, cwd=tmp_path, env=environment)
    assert report == {
        "directory": str(tmp_path),
        "umask": 0o027,
        "variables": {"COLOUR": "grün", "HOME": None},
        "files": 123,
        "nice": min(3 + os.getpriority(os.PRIO_PROCESS, 0), 19),
        "hangup": True,
        "descriptors": [0, 1, 2],
    }
    # The next one has its own.
    assert host.report()["hangup"] is False


def test_streams_and_status_are_its_callers(host: Host) -> None:
    assert host.call("echo", input="día\n" * 50_000).stdout == "día\n" * 50_000
    done = host.call("complain", "día ☂")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "día día ☂\n")
    assert host.call("exit").returncode == 143
    done = host.call("fail")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: odd")
    assert host.call("die").returncode == -signal.SIGTERM


def test_a_caller_of_another_kind_does_it_alone(host: Host) -> None:
    assert host.call("unsuitable").stdout == "alone\n"
    assert host.call("tell", env={**host.environment, "LC_ALL": "POSIX"}).stdout == "alone\n"
    assert host.call("tell", env={**host.environment, "XDG_RUNTIME_DIR": "/nonexistent"}).stdout == "alone\n"
    # It may do less.
    narrowed = ["setpriv", "--no-new-privs", *host.command("tell")]
    done = subprocess.run(narrowed, env=host.environment, capture_output=True, text=True, check=True)
    assert done.stdout == "alone\n"
    done = subprocess.run(
        [sys.executable, "-c", CALL, "cow", "x"], env=host.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "alone\n"


def test_a_changed_program_is_not_served(tmp_path: Path, short_directory: Path) -> None:
    """Another version, which a standby of this one knows nothing of."""
    module = tmp_path / "lib/json.py"
    module.parent.mkdir()
    module.write_text("def dumps(value):\n    return 'mine'\n")
    runtime = short_directory / "changed"
    runtime.mkdir()
    host = Host(runtime)
    host.environment["PYTHONPATH"] = f"{module.parent}:{ROOT}"
    host.start()
    try:
        assert host.call("tell").stdout == "mine\n"
        module.write_text("def dumps(value):\n    return 'another'\n")
        assert host.call("tell").stdout == "alone\n"
    finally:
        host.end()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, -signal.SIGHUP)])
def test_signals_are_passed_on(host: Host, number: signal.Signals, status: int) -> None:
    with host.waiting() as (client, worker):
        client.send_signal(number)
        assert client.wait(BOUND) == status
        assert eventually(lambda: state(worker) == "")


def test_it_stops_and_goes_on_with_its_caller(host: Host) -> None:
    with host.waiting() as (client, worker):
        client.send_signal(signal.SIGTSTP)
        assert eventually(lambda: (state(client.pid), state(worker)) == ("T", "T"))
        client.send_signal(signal.SIGCONT)
        assert eventually(lambda: (state(client.pid), state(worker)) == ("S", "S"))
        client.send_signal(signal.SIGINT)
        assert client.wait(BOUND) == 130


def test_it_ends_with_its_caller(host: Host) -> None:
    with host.waiting() as (client, worker):
        client.kill()
        assert eventually(lambda: state(worker) == "")
    assert host.report()["hangup"] is False


def test_a_standby_that_dies(tmp_path: Path) -> None:
    with hosted(tmp_path) as host, host.waiting() as (client, worker):
        standby = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(standby, signal.SIGKILL)
        _, errors = client.communicate(timeout=BOUND)
        assert (client.returncode, errors) == (1, "uml: the process that did this ended without a word; do it again\n")
        assert eventually(lambda: state(worker) == "")
        assert host.call("tell").stdout == "alone\n"
        for path in (host.path, host.orphan):
            path.unlink()
        host.directory.rmdir()


def test_nothing_is_left_when_its_host_is_killed(tmp_path: Path) -> None:
    with hosted(tmp_path) as host:
        host.process.kill()
        host.process.wait()
        assert eventually(lambda: not host.directory.exists())
