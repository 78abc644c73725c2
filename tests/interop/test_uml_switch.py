"""uml_switch: clients of all versions on ours, ours and Debian's alike."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.guest.caller import eventually
from umlfs.wire import uml_switch
from umlfs.wire.ethernet import BROADCAST

OURS = [sys.executable, "-c", "from runtime.cli.historical.switch import main; main()"]
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
BOUND = 10.0


@contextlib.contextmanager
def switch(words: list[str], control: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [*words, "-unix", str(control)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: listens(control))
            yield process
        finally:
            process.terminate()


def listens(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        return stream.connect_ex(os.fspath(control)) == 0


class Client:
    """A card."""

    def __init__(self, control: Path, version: int, path: Path | None = None) -> None:
        self.data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = os.fsencode(path) if path else (b"\0\0\0\0" + os.urandom(8)).ljust(108, b"\0")
        self.data.bind(address)
        self.data.settimeout(BOUND)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.settimeout(BOUND)
        self.control.connect(os.fspath(control))
        self.control.send(uml_switch.encode_request(address, version))
        if version:
            self.switch = uml_switch.decode_reply(self.control.recv(110))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self.control.close()

    def say(self, frame: bytes) -> None:
        self.data.sendto(frame, self.switch)

    def hear(self) -> bytes:
        return self.data.recv(65536)

    def hears_nothing(self) -> bool:
        self.data.settimeout(0.2)
        try:
            self.data.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.data.settimeout(BOUND)
        return False


@pytest.fixture(params=["ours", "Debian's"])
def words(request: pytest.FixtureRequest) -> list[str]:
    return OURS if request.param == "ours" else [needs.program("uml_switch")]


def test_frames_find_their_way(words: list[str], tmp_path: Path) -> None:
    """Between clients of versions 1 and 3, with addresses in the file system and without."""
    control = tmp_path / "control"
    with (
        switch(words, control),
        Client(control, 3) as one,
        Client(control, 1, tmp_path / "data") as two,
        Client(control, 3) as other,
    ):
        hello = BROADCAST + A + b"\x08\x00hello"
        one.say(hello)
        assert two.hear() == other.hear() == hello
        answer = A + B + b"\x08\x00answer"
        two.say(answer)
        assert one.hear() == answer
        assert other.hears_nothing()


def test_frames_wait_for_a_slow_reader(tmp_path: Path) -> None:
    """Many more than the kernel keeps for a socket: none is lost."""
    control = tmp_path / "control"
    with switch(OURS, control), Client(control, 3) as one, Client(control, 3) as two:
        two.say(BROADCAST + B + b"\x08\x00")
        one.hear()
        frames = [B + A + b"\x08\x00" + number.to_bytes(2, "big") for number in range(200)]
        for frame in frames:
            one.say(frame)
        assert [two.hear() for _ in frames] == frames


def test_who_breaks_the_protocol_is_sent_away(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with switch(OURS, control) as process, Client(control, 3) as one:
        for garbage in (uml_switch.encode_request(b"x")[:4] + b"\x02\0\0\0", b"x" * 124):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
                stream.settimeout(BOUND)
                stream.connect(os.fspath(control))
                stream.send(garbage)
                assert stream.recv(1) == b""
        one.control.send(b"more")
        assert one.control.recv(1) == b""
        assert process.poll() is None


def test_a_second_switch_is_refused_and_a_dead_one_replaced(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with switch(OURS, control) as process:
        done = subprocess.run([*OURS, "-unix", str(control)], capture_output=True, timeout=60, check=False)
        text = f"The control socket '{control}' has another server attached to it\n"
        assert (done.returncode, done.stderr.decode()) == (1, text)
        process.kill()
    with switch(OURS, control):
        pass
    assert not control.exists()


@pytest.mark.parametrize("arguments", [["-x"], ["-unix"], ["-tap"]])
def test_usage(arguments: list[str]) -> None:
    done = subprocess.run([*OURS, *arguments], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr[:8]) == (1, b"Usage : ")


@pytest.mark.real_root
def test_tunctl(tmp_path: Path) -> None:
    """In a network namespace: made, owned, used by the switch, removed; and errors, as Debian's says them."""
    ours = f"{sys.executable} -c 'from runtime.cli.historical.tunctl import main; main()'"
    script = f"""
    {ours} -t t7 -u 12 -g 13; {ours} -b; ip -br link show t7 | cut -d' ' -f1
    {ours} -d t7; {ours} -u nobody-knows -t t8 2>&1 | head -1; ls /sys/class/net
    """
    words = [needs.program("unshare"), "--net", "--mount", "sh", "-c", f"mount -t sysfs sys /sys; {script}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        "Set 't7' persistent and owned by uid 12 gid 13",
        "tap0",
        "t7",
        "Set 't7' nonpersistent",
        "'nobody-knows' is neither a username nor a numeric uid.",
        "lo",
        "tap0",
    ], done.stderr
