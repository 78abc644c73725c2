"""Which directories are taken for a humfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from humfs.source import kind
from humfs.volume import create
from umlfs.errors import UmlError
from umlfs.sources import OpenOptions


def test_a_humfs_is_claimed(tmp_path: Path) -> None:
    assert not kind.claims(tmp_path)
    create(tmp_path / "made", 1 << 30)
    assert kind.claims(tmp_path / "made")


def test_a_superblock_alone_is_none(tmp_path: Path) -> None:
    (tmp_path / "superblock").write_text("version 2\n")
    assert not kind.claims(tmp_path)


async def test_one_that_lost_its_files_is_no_plain_directory(tmp_path: Path) -> None:
    create(tmp_path / "made", 1 << 30)
    (tmp_path / "made/data").rmdir()
    assert kind.claims(tmp_path / "made")
    with pytest.raises(UmlError, match="data: no such directory"):
        await kind.open(str(tmp_path / "made"), OpenOptions())
