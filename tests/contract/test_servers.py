"""The contract, checked through the FUSE protocol: what hostfs does, a kernel sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostfs import HostFilesystem
from hostfs.filesystem import ANSWERS_VERSION
from tests.compiled import compiled
from tests.contract.filesystem import CHECKS, Check, Subject, name_of
from tests.contract.transports import Direct, Shredded
from tests.fuse.fuse_client import FuseClient
from tests.hostfs.features import features_of
from umlfs.fuse.session import FuseSession

KINDS = {
    "stateless": (Direct, True, False),
    "handles": (Shredded, False, False),
    "compiled, stateless": (Direct, True, True),
    "compiled, handles": (Direct, False, True),
}
"""What carries the requests, whether files are used without handles, and whether what is compiled answers."""


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
@pytest.mark.parametrize(("transport", "stateless", "quick"), KINDS.values(), ids=KINDS)
async def test_over_fuse(
    check: Check,
    transport: type[Direct],
    stateless: bool,
    quick: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filesystem = HostFilesystem(tmp_path, stateless=stateless)
    if quick:
        compiled("hostfs._answers", ANSWERS_VERSION)
    else:
        monkeypatch.setenv("UMLFS_PURE", "1")
    client = FuseClient(transport(FuseSession(filesystem)))
    await client.mount()
    subject = Subject(client, features_of(tmp_path))
    await check(subject)
    subject.forget_all()
    assert set(filesystem.resolver.table.nodes) == {1}
    assert not filesystem.handles
    await client.close()
    await filesystem.close()
