"""The contract, checked on an image's filesystem: through the stream, the filer and the guest's kernel."""

from __future__ import annotations

import subprocess
import traceback
from pathlib import Path

import pytest

from runtime.appliance.guest import appliance
from tests import needs
from tests.contract.filesystem import CHECKS, Features, Subject, name_of
from tests.guest.disks import MIB, empty
from umlfs.blocks.raw import open_raw
from umlfs.filesystem import ROOT, Caller
from umlfs.stream.filesystem import FuseStream

pytestmark = pytest.mark.guest

FEATURES = Features(xattrs=b"user.", before_1970=True)


async def test_every_claim_of_the_contract(tmp_path: Path) -> None:
    """Each check has a directory of its own for its root."""
    image = empty(tmp_path / "image", 256 * MIB)
    # Blocks for long symlinks, inodes for long attributes.
    command = [needs.program("mkfs.ext4"), "-qF", "-b", "4096", "-O", "ea_inode", str(image)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    device = open_raw(image)
    failed = []
    async with appliance([device], ["ext4"], writable=True) as guest:
        whole = await guest.mount(0, "ext4", writable=True)
        for check in CHECKS:
            name = name_of(check).encode()
            root = await whole.mkdir(ROOT, name, 0o755, 0, Caller())
            filesystem = FuseStream(guest.connection, root, read_only=False)
            subject = Subject(filesystem, FEATURES)
            try:
                await check(subject)
                subject.forget_all()
            except Exception:
                failed.append(f"{name.decode()}:\n{traceback.format_exc(limit=-3)}")
            whole.forget(root.ino, 1)
    await device.close()
    assert not failed, "\n".join(failed)
