"""The conformance suite: what the native filesystem passes, a mount by root passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from humfs.volume import create
from tests import needs
from tests.mounts.server import mounted
from tests.posix import attributes, files, names, permissions
from tests.posix.check import CHECKS, Check

MODULES = (names, permissions, attributes, files)
"""Importing them fills `CHECKS`."""

HUMFS_SIZE = 1 << 42

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["native", "hostfs", "humfs"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that everybody can reach, on the filesystem in question."""
    needs.root()
    # Not within pytest's own directory: any other pytest that starts meanwhile closes that to others again.
    with TemporaryDirectory(prefix="umlfs-posix-", dir="/tmp") as text:
        top = Path(text)
        source, mountpoint = top / "source", top / "mounted"
        for path in (top, source, mountpoint):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        if request.param == "native":
            yield source
            return
        if request.param == "humfs":
            source = source / "fs"
            create(source, HUMFS_SIZE, acl=True)
        with mounted(source, mountpoint, "allow_other,suid,dev"):
            yield mountpoint


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_posix(check: Check, place: Path) -> None:
    directory = place / str(next(_numbers))
    directory.mkdir()
    directory.chmod(0o777)
    check(directory)
