"""A ubd device as a BlockDevice: the file, or the COW file over its backing file, opened as its flags say."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Final

from umlfs.block import BlockDevice
from umlfs.blocks import sparse
from umlfs.blocks.raw import RawDevice, open_file
from umlfs.cow.header import READ_SIZE, BadHeader, NotCow, parse
from umlfs.cow.open import open_cow
from umlfs.cow.plain import PlainImage
from umlfs.errors import UmlError
from umlfs.ubd.spec import Spec

READ_ONLY_ERRORS: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What opening for writing may fail with where reading is possible: the driver then makes the disk read-only."""


async def open_ubd(spec: Spec) -> BlockDevice:
    """Open what `spec` names: a COW file finds its backing file, and is made if it is missing and that is given.

    A file that cannot be written is opened read-only, as the driver does. UmlError if it cannot be used.
    """
    try:
        return await _open(spec)
    except OSError as error:
        if spec.read_only or error.errno not in READ_ONLY_ERRORS:
            raise _unusable(spec, error) from error
    try:
        return await _open(replace(spec, read_only=True))
    except OSError as error:
        raise _unusable(spec, error) from error


async def _open(spec: Spec) -> BlockDevice:
    read_only, sync, lock, discard = spec.read_only, spec.sync, not spec.shared, not spec.no_trim
    if spec.backing is None and (spec.plain or not is_cow(spec.file)):
        kind = RawDevice if spec.plain else PlainImage
        file = open_file(spec.file, read_only=read_only, sync=sync, lock=lock)
        return kind(file, file.size(), read_only=read_only, discard=discard)
    return await open_cow(spec.file, spec.backing, read_only=read_only, sync=sync, lock=lock, discard=discard)


def is_cow(path: str) -> bool:
    """Whether the file has a COW header. OSError; UmlError for one that is damaged, which as a plain image (the
    driver's choice) would be damaged further."""
    try:
        parse(head_of(path))
    except NotCow:
        return False
    except BadHeader as error:
        raise UmlError(f"{path}: damaged COW header: {error}", "restore it, or use it as it is with flag d") from error
    return True


def head_of(path: str) -> bytes:
    """The beginning of the file, as much as a COW header may take. OSError; UmlError if it is no file."""
    file = open_file(path, read_only=True, lock=False)
    try:
        return sparse.read_all(file.fileno(), READ_SIZE, 0)
    finally:
        file.close()


def _unusable(spec: Spec, error: OSError) -> UmlError:
    way_out = None
    if error.errno == errno.ENOENT and not spec.plain:
        way_out = "name an existing file, or give a backing file too, and it is made as a COW file"
    return UmlError(f"{spec.name}: {error.filename or spec.file}: {error.strerror}", way_out)
