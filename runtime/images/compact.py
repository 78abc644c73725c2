"""What an image's filesystem no longer uses, given back to the host."""

from __future__ import annotations

import os

import trio

from runtime.images.blocks import require_whole
from runtime.images.formats import Format, Image
from runtime.images.inside import NAME, in_guest
from runtime.images.output import output_file
from runtime.images.streams import convert_with_qemu
from umlfs.blocks.raw import open_raw
from umlfs.cow.open import open_cow
from umlfs.errors import UsageError

_TRIM = f"""\
found=
for device in /dev/{NAME} /dev/{NAME}?*; do
    [ -b "$device" ] && mount "$device" /mnt 2>/dev/null || continue
    found=1
    fstrim /mnt
    umount /mnt
done
[ "$found" ] || {{ mount /dev/{NAME} /mnt; exit 1; }}
"""


async def compact(image: Image) -> int:
    """Give back to the host what the filesystems in a disk do not use; returns how many bytes that was.

    A raw image and a COW file are trimmed in place, each partition that can be mounted; a qcow2 image is written
    anew without its unused clusters. UsageError for what is no disk; UmlError if it is in use or cannot be mounted.
    """
    path = image.path
    if image.partition is not None:
        raise UsageError(f"{path}: all its partitions are compacted", "leave out the number")
    if not image.format.is_disk:
        raise UsageError(f"{path}: no disk, so it holds nothing that is not used", None)
    if image.format.by_qemu and image.format is not Format.QCOW2:
        raise UsageError(
            f"{path}: a {image.format.value} image, which keeps what it once took", "'uml image convert' it"
        )
    before = os.stat(path).st_blocks
    if image.format is Format.QCOW2:
        require_whole(image)
        with output_file(path, force=True, mode=os.stat(path).st_mode & 0o777) as fd:
            await convert_with_qemu(path, "qcow2", fd, "qcow2")
            await trio.lowlevel.checkpoint_if_cancelled()
    else:
        device = await open_cow(str(path)) if image.format is Format.COW else open_raw(path)
        try:
            await in_guest(device, _TRIM, f"{path}: no filesystem in it can be trimmed")
            await device.flush()
        finally:
            await device.close()
    return max(0, before - os.stat(path).st_blocks) * 512
