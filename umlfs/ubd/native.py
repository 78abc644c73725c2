"""Handing a device to the kernel's own ubd driver, where that driver is up to it.

What the driver of Linux 6.1 gets wrong is known: it never flushes, repeats data behind an end that is no whole
sector, hangs on writing to small COW devices, misreads around groups that are partly copied, and panics on a header
with alignment 0. What it would hang on or corrupt is refused here, before it sees it.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from umlfs.blocks.foreign import format_of
from umlfs.cow.backing import is_remote
from umlfs.cow.check import check
from umlfs.cow.file import header_at
from umlfs.cow.header import SECTOR, Header
from umlfs.cow.plain import begins_cow_file
from umlfs.errors import UmlError
from umlfs.ubd.device import head_of, is_cow, open_ubd
from umlfs.ubd.native_files import NativeFiles
from umlfs.ubd.spec import Spec

SMALLEST_COW: Final = 64 * SECTOR
"""A COW device of this size or less: the driver loops for ever on the first write."""
OFFSET_MAX: Final = (1 << 31) - 1
"""The driver keeps the offset of the data area in an int."""

OURS: Final = "leave out '--ubd-driver native': our own driver takes it"


def native_files(spec: Spec) -> NativeFiles:
    """The files of a device that `native_argument` has checked. OSError."""
    file, backing = Path(os.path.abspath(spec.file)), spec.backing
    size = _size(file)
    if not spec.plain and is_cow(spec.file):
        header = header_at(spec.file)
        backing = backing or os.fsdecode(header.backing)
        size = max(size, header.data_offset + header.size)
    behind = (Path(os.path.abspath(backing)),) if backing else ()
    return NativeFiles((*behind, file), (), 0) if spec.read_only else NativeFiles(behind, (file,), size)


def _size(path: Path) -> int:
    return path.stat().st_size


async def native_argument(spec: Spec) -> str:
    """The word for the kernel's command line, after the checks that our own driver makes (a missing COW file is made,
    a moved backing file noted, everything locked for a moment). UmlError for what the driver must not be given."""
    word = native_word(spec)
    device = await open_ubd(spec)
    size, read_only = device.size, device.read_only
    await device.close()
    if is_remote(spec.file):
        raise _refused(spec, "it can only open files")
    if not spec.plain and (image_format := format_of(spec.file)):
        raise _refused(spec, f"it knows nothing of {image_format} images")
    if spec.plain and begins_cow_file(head_of(spec.file)):
        raise _refused(spec, "even with flag d it takes the size from the COW header")
    if not spec.plain and is_cow(spec.file):
        _check_cow(spec, header_at(spec.file), read_only)
    elif size % SECTOR:
        raise _refused(spec, f"its {size} bytes end within a sector, and it would repeat data there")
    return word


def native_word(spec: Spec) -> str:
    """The word, without any checks of what is in the files. UmlError for a name that the kernel cannot be given."""
    files = [posixpath.join(os.getcwd(), name) for name in (spec.file, spec.backing) if name]
    for name in files:
        if any(c in ',:"' or c.isspace() or not c.isprintable() for c in name):
            raise UmlError(f"{name}: the kernel's own driver cannot be given a name with ',', ':' or a space", OURS)
    return str(replace(spec, file=files[0], backing=files[1] if spec.backing else None))


def _check_cow(spec: Spec, header: Header, read_only: bool) -> None:
    if is_remote(os.fsdecode(header.backing)):
        raise _refused(spec, "it can only open files, not the backing device that this COW file has")
    if header.size % SECTOR:
        raise _refused(spec, f"its backing file of {header.size} bytes ends within a sector, which would repeat data")
    if header.size <= SMALLEST_COW and not read_only:
        raise _refused(spec, f"it would hang on the first write to a COW device of {header.size} bytes")
    if header.data_offset > OFFSET_MAX:
        raise _refused(spec, f"it would miscalculate where the data of a device of {header.size} bytes lie")
    if header.version == 1 and header.byte_order == "big":
        raise _refused(spec, "it misreads COW files of version 1 from machines of the other byte order")
    for finding in check(spec.file):
        if finding.what in ("groups-mixed", "truncated"):
            repair = f"mend it with 'uml cow check --repair {shlex.quote(spec.file)}', or {OURS}"
            raise _refused(spec, finding.text, repair)


def _refused(spec: Spec, why: str, way_out: str = OURS) -> UmlError:
    return UmlError(f"{spec.file}: not for the kernel's own driver: {why}", way_out)
