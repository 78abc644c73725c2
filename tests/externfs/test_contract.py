"""The contract of `Filesystem`, checked against a tree of nodes: in the loop, and through the FUSE protocol."""

from __future__ import annotations

import pytest

from tests.contract.filesystem import CHECKS, Check, Features, Subject, name_of
from tests.contract.transports import Shredded
from tests.externfs.memory import MemoryDirectory
from tests.fuse.fuse_client import FuseClient
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.fuse.session import FuseSession

FEATURES = Features(
    fallocate=False,
    punch_hole=False,
    zero_range=False,
    holes=False,
    copy_file_range=False,
    xattrs=None,
    big_files=False,
)


def _nothing_is_left(filesystem: NodeFilesystem) -> None:
    assert len(filesystem._inodes) == 1
    assert not filesystem._contents


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_contract(check: Check) -> None:
    filesystem = NodeFilesystem(MemoryDirectory())
    subject = Subject(filesystem, FEATURES)
    await check(subject)
    subject.forget_all()
    _nothing_is_left(filesystem)
    await filesystem.close()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_over_fuse(check: Check) -> None:
    filesystem = NodeFilesystem(MemoryDirectory())
    client = FuseClient(Shredded(FuseSession(filesystem)))
    await client.mount()
    subject = Subject(client, FEATURES)
    await check(subject)
    subject.forget_all()
    _nothing_is_left(filesystem)
    await client.close()
    await filesystem.close()
