"""A kernel that was taken over gets nothing of the host: each trick is a test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from runtime.jail import seccomp, users
from runtime.jail.layers import Layer, Mode
from runtime.jail.plan import Plan
from runtime.kernels.kernel import find_kernel
from tests.jail.hostile_kernel import TRICKS, Attack, attack, compiled

pytestmark = pytest.mark.guest

HARMLESS = [
    *("open-secret", "create-outside", "list-outside", "stat-secret", "open-passwd", "list-home", "list-sys"),
    *("tcp-connect", "udp-send", "netlink-socket", "abstract-socket", "path-socket"),
    *("ssh-agent", "message-bus", "docker", "log-socket", "go-outside", "watch-secret", "attributes-of-secret"),
    *("compare-victim", "steal-descriptor", "semaphores", "posix-queue"),
    *("proc-parent-environ", "trace-parent", "signal-victim", "unshare-user", "execute-shell", "shared-memory"),
]
"""Tricks that can be tried without a jail: there they work."""

NEEDS_NAMESPACES = {"stat-secret", "fill-own-directory", "fill-memory-directory", "many-files", "signal-by-owner"}
"""What the other layers do not stop: whether a file exists, and how much of a directory is filled. (A signal to
an owner is refused when it is sent, which the trick does not see.)"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Path]:
    """Where any user may execute it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield compiled(Path(name))


def attacked(kernel: Path, directory: Path, mode: Mode, only: list[str] | None = None) -> Attack:
    return trio.run(attack, kernel, directory, mode, only or [])


@pytest.fixture(scope="module")
def jailed(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    return attacked(kernel, tmp_path_factory.mktemp("jailed"), Mode.AUTO)


def of_kernels() -> set[str]:
    """What a kernel of this version does itself: newer ones execute their guest's processes from memory."""
    return set() if seccomp.unused_by(find_kernel().version) else {"execute-memory"}


@pytest.mark.parametrize("trick", TRICKS)
def test_trick(trick: str, jailed: Attack) -> None:
    assert (trick in jailed.worked) == (trick in of_kernels())
    assert (trick in jailed.failed) != (trick in of_kernels())


@pytest.mark.parametrize("version", ["6.1.176", "6.12.101", "7.2.7"])
def test_every_trick_with_the_filter_of(
    version: str, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter goes by the version that a kernel says it has."""
    unused = seccomp.unused_by(version)
    monkeypatch.setattr(seccomp, "unused_by", lambda version: unused)
    found = attacked(kernel, tmp_path, Mode.AUTO)
    assert found.worked == of_kernels()
    assert found.worked | found.failed.keys() == set(TRICKS)


def test_tricks_that_work_without_a_jail(kernel: Path, tmp_path: Path) -> None:
    only = [trick for trick in HARMLESS if trick in TRICKS]
    assert attacked(kernel, tmp_path, Mode.OFF, only).worked == set(only)


def test_without_namespaces(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that forbids them: what Landlock and the filter stop is stopped."""
    monkeypatch.setattr(Plan, "_namespaces", lambda self: iter(()))
    monkeypatch.setattr(users, "shows_files", lambda: False)
    found = attacked(kernel, tmp_path, Mode.AUTO)
    assert set(found.layers.lacking) == {Layer.ROOT}
    assert Layer.LANDLOCK in found.layers.present
    assert found.worked <= NEEDS_NAMESPACES | of_kernels()
