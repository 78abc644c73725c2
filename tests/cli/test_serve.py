"""`uml serve`: one line when ready, a clean end, and refusals."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs


@contextlib.contextmanager
def serving(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`uml serve ARGS`, with the line that it prints."""
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "serve", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().strip()
        finally:
            server.terminate()
            server.communicate()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nbd_at_a_socket(image: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "nbd"
    with serving("nbd", f"raw:{image}", "--socket", str(path), "--name", "a disk") as (server, line):
        assert line == f"nbd+unix:///a%20disk?socket={path}"
        found = subprocess.run([needs.program("nbdinfo"), "--size", line], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == str(image.stat().st_size)
        server.send_signal(number)
        assert server.communicate() == ("", "")
        assert server.returncode == 0
    assert not path.exists()


def test_nbd_at_a_port_read_only(image: Path) -> None:
    with serving("nbd", f"raw:{image}", "--port", "0", "--read-only") as (_, line):
        assert line.startswith("nbd://127.0.0.1:")
        command = [needs.program("qemu-io"), "-f", "raw", "-c", "write 0 4096", line]
        written = subprocess.run(command, capture_output=True, text=True, check=False)
        assert written.returncode != 0
    assert image.read_bytes() == bytes(range(256)) * 4096


def test_virtiofs(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    with serving("virtiofs", f"hostfs:{tmp_path}", "--socket", str(path)) as (_, line):
        assert line == str(path)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            # GET_FEATURES, and its answer of 8 bytes.
            peer.sendall(bytes.fromhex("01000000 01000000 00000000"))
            assert peer.recv(20)[:12] == bytes.fromhex("01000000 05000000 08000000")
    assert not path.exists()


def test_virtioblk(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with serving("virtioblk", f"raw:{image}", "--socket", str(path), "--serial", "SER") as (_, line):
        assert line == str(path)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            # GET_CONFIG of 8 bytes: the capacity in sectors.
            peer.sendall(bytes.fromhex("18000000 01000000 14000000 00000000 08000000 00000000") + bytes(8))
            assert peer.recv(32)[-8:] == (image.stat().st_size // 512).to_bytes(8, "little")
    assert not path.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nbd", "raw:{}"], "say where to listen"),
        (["nbd", "raw:{}", "--port", "1", "--socket", "x"], "say where to listen"),
        (["nbd", "hostfs:.", "--socket", "x"], "is not a block device; 'uml serve virtiofs'"),
        (["virtiofs", "raw:{}", "--socket", "x"], "is not a filesystem; 'uml serve nbd'"),
        (["virtiofs", "hostfs:."], "say where to listen"),
        (["virtioblk", "raw:{}"], "say where to listen"),
        (["virtioblk", "hostfs:.", "--socket", "x"], "is not a block device; 'uml serve virtiofs'"),
        (["virtioblk", "raw:{}", "--socket", "x", "--serial", "x" * 21], "longer than 20 bytes"),
        (["nbd", "raw:{}", "--socket", "{}"], "not a socket"),
    ],
)
def test_refusals(image: Path, tmp_path: Path, args: list[str], message: str) -> None:
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "serve"]
    command += [arg.format(image) for arg in args]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
