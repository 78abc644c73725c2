"""The contract of `Filesystem`, checked against humfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.volume import create
from tests.contract.filesystem import CHECKS, Check, Features, Subject, name_of

SIZE = 1 << 42


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_contract(check: Check, tmp_path: Path) -> None:
    create(tmp_path / "fs", SIZE)
    filesystem: HumFilesystem = open_filesystem(tmp_path / "fs")
    subject = Subject(filesystem, Features())
    await check(subject)
    subject.forget_all()
    assert not filesystem._core.orphans
    assert filesystem.volume.used == filesystem.volume.count_used() or filesystem._core.dirty
    await filesystem.close()
