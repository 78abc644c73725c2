"""Listening sockets: stale ones replaced, live ones refused, nothing left behind."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from umlfs.errors import UmlError
from umlfs.host.listening import tcp_listeners, unix_listener


def test_is_for_its_owner_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix_listener(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with unix_listener(path), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))


def test_a_live_one_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix_listener(path), socket.socket(socket.AF_UNIX) as peer:
        with pytest.raises(UmlError, match="in use by this process"), unix_listener(path):
            pass
        peer.connect(str(path))


def test_anything_else_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(UmlError, match="not a socket"), unix_listener(path):
        pass
    assert path.read_text() == "precious"


def test_somebody_elses_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        with unix_listener(path):
            path.unlink()
            other.bind(str(path))
        assert path.exists()


@pytest.mark.parametrize("name", ["missing/socket", "x" * 200])
def test_where_none_can_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(UmlError, match="cannot listen"), unix_listener(tmp_path / name):
        pass


def test_ports() -> None:
    with tcp_listeners("localhost", 0) as listeners:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        with pytest.raises(UmlError, match="is taken by this process"), tcp_listeners("127.0.0.1", ports.pop()):
            pass
