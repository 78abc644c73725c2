"""The contract of `Filesystem`, as checks of any provider, through any server.

Each check takes a fresh, empty filesystem and uses it through the contract alone:

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_contract(check, tmp_path):
        await run(check, make_filesystem, Features(...))

What a provider cannot do, or the user it runs as may not, is said by `Features`; checks then assert that it is
refused as it should be. A mount or a guest is checked from the inside: `HostFilesystem` on the mount point is a
Filesystem again, and adds nothing of its own that the checks would see.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.contract import fs_attributes, fs_directories, fs_files, fs_names, fs_space
from tests.contract.subject import CHECKS, Check, Features, Subject
from umlfs.filesystem import Filesystem

__all__ = ["CHECKS", "Check", "Features", "Subject", "name_of", "run"]

MODULES = (fs_names, fs_files, fs_space, fs_attributes, fs_directories)
"""Where the checks are; importing them fills `CHECKS`."""

MakeFilesystem = Callable[[], Awaitable[Filesystem]]


def name_of(check: Check) -> str:
    """For the ids of parametrized tests."""
    return getattr(check, "__name__", repr(check))


async def run(check: Check, make: MakeFilesystem, features: Features | None = None) -> None:
    """Run one check on a filesystem that `make` makes, and close it, every lookup given back."""
    filesystem = await make()
    subject = Subject(filesystem, features)
    try:
        async with filesystem.running():
            await check(subject)
            subject.forget_all()
    finally:
        await filesystem.close()
