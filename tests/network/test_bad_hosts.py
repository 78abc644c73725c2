"""Hosts that lack something, and ports that cannot be had: one line that says why, and the way out."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.network import bridge, lab, published, slirp
from umlfs.errors import UmlError, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no networks yet, on a host that nothing is known of."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for known in (slirp.find, bridge._lacking):
        known.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> object:
    """What was found out here holds nowhere else."""
    yield
    for known in (slirp.find, bridge._lacking):
        known.cache_clear()


def bridged() -> None:
    lab.create("lab", "10.99.0.0/24", internal=False, isolated=False, mtu=9000, engine="bridge")


def test_no_tun_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bridge, "TUN", tmp_path / "tun")
    complains(bridged, f"--engine bridge: no {tmp_path}/tun (as root: modprobe tun); mend that, or use --engine switch")


def test_a_tun_device_that_is_roots_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bridge, "TUN", tmp_path / "tun")
    (tmp_path / "tun").touch(mode=0o600)
    complains(bridged, f"{tmp_path}/tun is not for everyone (as root: chmod 666 {tmp_path}/tun)")


def test_no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "user_namespaces", lambda: False)
    complains(bridged, "--engine bridge: this user may not make namespaces; mend that, or use --engine switch")


def test_an_engine_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "slirp4netns"
    program.write_text("#!/bin/sh\necho slirp4netns version 0.4.3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    complains(slirp.find, f"{program}: version 0.4.3, too old for --net user; 1.2.0 or later will do")


def test_a_subnet_of_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {ipaddress.IPv4Network("10.99.0.0/16"): "this host's eth7"}
    monkeypatch.setattr(lab, "_taken", lambda: taken)
    create = lambda: lab.create("lab", "10.99.7.0/24", internal=False, isolated=False, mtu=9000)  # noqa: E731
    complains(create, "--subnet 10.99.7.0/24: overlaps 10.99.0.0/16 of this host's eth7; choose another")


def test_a_port_of_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: object, address: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", bind)
    complains(lambda: published.check_free(published.parse("80:80")), "port 80: only root may listen on it; choose one")


def test_what_excludes_itself() -> None:
    create = lambda: lab.create("lab", None, internal=False, isolated=True, mtu=9000, engine="bridge")  # noqa: E731
    complains(create, "--isolated and --engine bridge")


def complains(action: Callable[[], object], what: str) -> None:
    with pytest.raises((UmlError, UsageError)) as caught:
        action()
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path.home().glob(".uml-net/*"))
