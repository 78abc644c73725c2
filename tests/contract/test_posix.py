"""The POSIX adapter adds nothing of its own: on a plain directory everything holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.filesystem import CHECKS, Check, name_of, run
from tests.contract.posix import PosixFilesystem
from tests.hostfs.features import features_of
from umlfs.filesystem import Caller, Filesystem


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_plain_directory(check: Check, tmp_path: Path) -> None:
    async def make() -> Filesystem:
        return PosixFilesystem(tmp_path)

    await run(check, make, replace(features_of(tmp_path), caller=Caller(os.geteuid(), os.getegid(), 1)))
