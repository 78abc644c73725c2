"""The conformance suite: what the native filesystem passes, a mount by root passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.mounts.server import mounted
from tests.posix import attributes, files, names, permissions
from tests.posix.check import CHECKS, Check

MODULES = (names, permissions, attributes, files)
"""Importing them fills `CHECKS`."""

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["native", "hostfs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that everybody can reach, on the filesystem in question."""
    needs.root()
    source = tmp_path_factory.mktemp("source")
    for path in (source, *source.parents):
        if path.stat().st_mode & 0o1 == 0:
            path.chmod(path.stat().st_mode | 0o711)
    if request.param == "native":
        yield source
        return
    mountpoint = tmp_path_factory.mktemp("mounted")
    with mounted(source, mountpoint, "allow_other,suid,dev"):
        yield mountpoint


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_posix(check: Check, place: Path) -> None:
    directory = place / str(next(_numbers))
    directory.mkdir()
    directory.chmod(0o777)
    check(directory)
