"""Which disks several machines may write at the same time."""

from __future__ import annotations

from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks import probe
from umlfs.blocks.slice import Slice
from umlfs.errors import UmlError
from umlfs.views.disks import partitions

CLUSTER_FILESYSTEMS: Final = frozenset({"ocfs2", "gfs2"})
"""Those that machines may have mounted at once."""


async def require_shareable(device: BlockDevice, name: str) -> None:
    """UmlError if what is on the disk, or in one of its partitions, is known to be spoiled by two machines. OSError."""
    for place, kind in await _contents(device, name):
        if kind is not None and kind not in CLUSTER_FILESYSTEMS:
            raise UmlError(
                f"{place}: holds {kind}, which machines that write it at the same time destroy",
                "give it ocfs2 or gfs2; flags cd share it all the same",
            )


async def _contents(device: BlockDevice, name: str) -> list[tuple[str, str | None]]:
    kind = await probe.probe(device)
    if kind != probe.PARTITIONED:
        return [(name, kind)]
    parts = {part.number: Slice(device, part.offset, part.length) for part in await partitions(device)}
    return [(f"{name}:{number}", await probe.probe(part)) for number, part in parts.items()]
