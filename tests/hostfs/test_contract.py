"""The contract, checked against host directories: without handles and with them, cached and not, in need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostfs import Cache, HostFilesystem
from tests.contract.filesystem import CHECKS, Check, Subject, name_of
from tests.contract.fs_attributes import modes_are_as_asked, special_bits_at_creation
from tests.hostfs.features import features_of

each_check = pytest.mark.parametrize("check", CHECKS, ids=name_of)


async def _run(check: Check, filesystem: HostFilesystem, directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    subject = Subject(filesystem, features_of(directory))
    await check(subject)
    subject.forget_all()
    assert set(filesystem.resolver.table.nodes) == {1}
    assert len(filesystem.resolver.table.keys) == 1
    assert not filesystem.handles
    await filesystem.resolver.closer.drain()
    assert len(os.listdir("/proc/self/fd")) <= before
    await filesystem.close()


@each_check
async def test_stateless(check: Check, tmp_path: Path) -> None:
    await _run(check, HostFilesystem(tmp_path), tmp_path)


@each_check
async def test_with_handles(check: Check, tmp_path: Path) -> None:
    await _run(check, HostFilesystem(tmp_path, stateless=False), tmp_path)


@each_check
async def test_uncached(check: Check, tmp_path: Path) -> None:
    await _run(check, HostFilesystem(tmp_path, cache=Cache.NEVER), tmp_path)


@each_check
@pytest.mark.parametrize("stateless", [True, False])
@pytest.mark.usefixtures("cold")
async def test_cold(check: Check, stateless: bool, tmp_path: Path) -> None:
    await _run(check, HostFilesystem(tmp_path, stateless=stateless), tmp_path)


@each_check
@pytest.mark.usefixtures("scarce")
async def test_few_descriptors(check: Check, tmp_path: Path) -> None:
    await _run(check, HostFilesystem(tmp_path), tmp_path)


@pytest.mark.parametrize("check", [modes_are_as_asked, special_bits_at_creation], ids=name_of)
async def test_with_a_strict_umask(check: Check, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        await _run(check, HostFilesystem(tmp_path), tmp_path)
    finally:
        os.umask(before)
