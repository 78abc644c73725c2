"""The contract, checked through the FUSE protocol: what hostfs does, a kernel sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostfs import HostFilesystem
from tests.contract.filesystem import CHECKS, Check, Subject, name_of
from tests.contract.transports import Direct, Shredded
from tests.fuse.fuse_client import FuseClient
from tests.hostfs.features import features_of
from umlfs.fuse.session import FuseSession


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
@pytest.mark.parametrize(("transport", "stateless"), [(Direct, True), (Shredded, False)], ids=["stateless", "handles"])
async def test_over_fuse(check: Check, transport: type[Direct], stateless: bool, tmp_path: Path) -> None:
    filesystem = HostFilesystem(tmp_path, stateless=stateless)
    client = FuseClient(transport(FuseSession(filesystem)))
    await client.mount()
    subject = Subject(client, features_of(tmp_path))
    await check(subject)
    subject.forget_all()
    assert set(filesystem.resolver.table.nodes) == {1}
    assert not filesystem.handles
    await client.close()
    await filesystem.close()
