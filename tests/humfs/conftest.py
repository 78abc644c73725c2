"""A humfs to test, and short ways to use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from humfs.filesystem import open_filesystem
from humfs.volume import create
from tests.contract.filesystem import Subject

SIZE = 1 << 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A new humfs directory that nobody has open."""
    create(tmp_path / "fs", SIZE, acl=True)
    return tmp_path / "fs"


@pytest.fixture
async def subject(root: Path) -> AsyncIterator[Subject]:
    """It, open."""
    filesystem = open_filesystem(root)
    subject = Subject(filesystem)
    yield subject
    await filesystem.close()
