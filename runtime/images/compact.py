"""What an image's filesystem no longer uses, given back to the host."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import Any

import trio

from runtime.host.needs import find_program
from runtime.images.blocks import facts_of, require_whole
from runtime.images.formats import Format, Image
from runtime.images.inside import NAME, in_guest
from runtime.images.output import output_file
from runtime.images.streams import convert_with_qemu
from umlfs.blocks.raw import open_raw
from umlfs.cow.open import open_cow
from umlfs.errors import UsageError
from umlfs.host.programs import run_program

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
    anew without its unused clusters, as it was made: cluster size, version and compression stay. It stays as it is
    where that would save nothing. UsageError for what is no such disk, or one with snapshots in it; UmlError if it is
    in use or cannot be mounted.
    """
    path = image.path
    if image.partition is not None:
        raise UsageError(f"{path}: all its partitions are compacted", "leave out the number")
    if not image.format.is_disk:
        raise UsageError(f"{path}: no disk, so it holds nothing that is not used", None)
    if image.compression is not None:
        raise UsageError(f"{path}: compressed with {image.compression}, so it cannot be written", "decompress it")
    before = os.stat(path).st_blocks
    if image.format is Format.QCOW2:
        await _rewrite(image)
    elif image.format.qemu is not None:
        raise UsageError(f"{path}: of a {image.format.value} nothing can be given back", "convert it to qcow2")
    else:
        device = await open_cow(str(path)) if image.format is Format.COW else open_raw(path)
        try:
            await in_guest(device, _TRIM, f"{path}: no filesystem in it can be trimmed")
            await device.flush()
        finally:
            await device.close()
    return max(0, before - os.stat(path).st_blocks) * 512


async def _rewrite(image: Image) -> None:
    """Replace a qcow2 by a smaller one with the same contents and settings, if that is smaller."""
    facts = facts_of(image)
    if facts.get("snapshots"):
        raise UsageError(
            f"{image.path}: has {len(facts['snapshots'])} snapshots in it, which would be lost",
            "delete them with 'qemu-img snapshot -d NAME', or keep it as it is",
        )
    require_whole(image)
    details = facts["format-specific"]["data"]
    if details.get("bitmaps"):
        raise UsageError(f"{image.path}: has persistent bitmaps in it, which would be lost", "remove them, or keep it")
    found = os.stat(image.path)
    with contextlib.suppress(_NotSmallerError), output_file(image.path, force=True, mode=found.st_mode & 0o777) as fd:
        await convert_with_qemu(image, fd, "qcow2", _settings(facts, details))
        await trio.lowlevel.checkpoint_if_cancelled()
        if os.fstat(fd).st_blocks >= found.st_blocks:
            raise _NotSmallerError
        with contextlib.suppress(OSError):
            os.fchown(fd, found.st_uid, found.st_gid)


class _NotSmallerError(Exception):
    """What was made is not smaller than what it is to replace."""


def _settings(facts: dict[str, Any], details: dict[str, Any]) -> list[str]:
    """Options of `qemu-img convert` that make a qcow2 like another."""
    values = {
        "compat": details["compat"],
        "cluster_size": facts["cluster-size"],
        "refcount_bits": details["refcount-bits"],
        "lazy_refcounts": "on" if details.get("lazy-refcounts") else "off",
        "compression_type": details.get("compression-type", "zlib"),
        "extended_l2": "on" if details.get("extended-l2") else "off",
    }
    if values["compat"] == "0.10":
        values = {key: values[key] for key in ("compat", "cluster_size")}
    options = ["-o", ",".join(f"{key}={value}" for key, value in values.items())]
    return ["-c", *options] if _is_compressed(facts) else options


def _is_compressed(facts: dict[str, Any]) -> bool:
    """Whether any cluster is: then all that is written may be."""
    check = [find_program("qemu-img"), "check", "-U", "-f", "qcow2", "--output=json", facts["filename"]]
    done = run_program(check, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        return bool(json.loads(done.stdout).get("compressed-clusters"))
    except ValueError:
        return False
