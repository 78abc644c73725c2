"""Mounts, each served by a process of its own: one that served the mount that it uses would wait for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mounts.server import mounted

Mount = Callable[..., Path]


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A directory, and where it is mounted: for the tests of a module, each in a place of its own."""
    source, mountpoint = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("mounted")
    with mounted(source, mountpoint):
        yield source, mountpoint


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a source with `-o` options at a new directory, and gives that directory."""
    with ExitStack() as stack:

        def make(source: Path | str, *options: str, name: str = "mounted") -> Path:
            mountpoint = tmp_path / name
            mountpoint.mkdir()
            stack.enter_context(mounted(source, mountpoint, *options))
            return mountpoint

        yield make
