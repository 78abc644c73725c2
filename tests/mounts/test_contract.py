"""The contract, checked through a mount: by a HostFilesystem on the mount point, which adds nothing of its own."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from hostfs import Cache, HostFilesystem
from tests.contract.filesystem import CHECKS, Check, Features, name_of, run
from tests.hostfs.features import features_of

_numbers = itertools.count()


def through_a_mount(features: Features) -> Features:
    """What is left of `features` where pyfuse3 has no request for them."""
    return dataclasses.replace(features, fallocate=False, punch_hole=False, zero_range=False, holes=False)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_hostfs(check: Check, shared_mount: tuple[Path, Path]) -> None:
    source, mountpoint = shared_mount
    name = str(next(_numbers))
    (source / name).mkdir()

    async def make() -> HostFilesystem:
        return HostFilesystem(mountpoint / name, cache=Cache.NEVER)

    await run(check, make, through_a_mount(features_of(source)))
