"""The contract, checked through mounts: by a HostFilesystem on the mount point, which adds nothing of its own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostfs import Cache, HostFilesystem
from humfs.volume import create
from tests.contract.filesystem import CHECKS, Check, Features, name_of, run
from tests.hostfs.features import features_of
from tests.mounts.server import mounted

HUMFS_SIZE = 1 << 42

_numbers = itertools.count()


@pytest.fixture(scope="module")
def humfs_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a humfs is mounted."""
    tree, mountpoint = tmp_path_factory.mktemp("humfs") / "fs", tmp_path_factory.mktemp("mounted")
    create(tree, HUMFS_SIZE)
    with mounted(tree, mountpoint):
        yield mountpoint


async def _check(check: Check, place: Path, features: Features) -> None:
    place.mkdir()

    async def make() -> HostFilesystem:
        return HostFilesystem(place, cache=Cache.NEVER)

    await run(check, make, features)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_hostfs(check: Check, shared_mount: tuple[Path, Path]) -> None:
    await _check(check, shared_mount[1] / str(next(_numbers)), features_of(shared_mount[0]))


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_humfs(check: Check, humfs_mount: Path) -> None:
    """Holes are the kernel's to know, which may have yet to write into them."""
    features = dataclasses.replace(features_of(humfs_mount), holes=False)
    await _check(check, humfs_mount / str(next(_numbers)), features)
