"""A ubd device as a BlockDevice: the file, or the COW file over its backing file, opened as its flags say."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from umlfs.block import BlockDevice
from umlfs.blocks import sparse
from umlfs.blocks.raw import open_file
from umlfs.cow.backing import is_remote
from umlfs.cow.header import READ_SIZE, BadHeader, NotCow, parse
from umlfs.errors import UmlError
from umlfs.sources import NOT_WRITABLE, OpenOptions, Source, Unopened, detect
from umlfs.sources import parse as parse_source
from umlfs.ubd.shared import require_shareable
from umlfs.ubd.spec import Spec


async def open_ubd(spec: Spec) -> BlockDevice:
    """Open what `spec` names, as what it is: a COW file finds its backing file, and is made if it is missing and that
    is given; qemu serves the images of its formats.

    A file that cannot be written is opened read-only, as the driver does. UmlError if it cannot be used.
    """
    try:
        return await _open(spec)
    except Unopened as error:
        if spec.read_only or error.error.errno not in NOT_WRITABLE:
            raise _unusable(spec, error.error) from error
    except OSError as error:
        raise _unusable(spec, error) from error
    try:
        return await _open(replace(spec, read_only=True))
    except Unopened as error:
        raise _unusable(spec, error.error) from error


async def look_at_ubd(spec: Spec) -> BlockDevice:
    """The same, read-only, and as it would be where it is to be made first. UmlError if it cannot be used."""
    if spec.backing is not None and _is_missing(spec.file):
        spec = replace(spec, file=spec.backing, backing=None)
    return await open_ubd(replace(spec, read_only=True))


def _is_missing(path: str) -> bool:
    return not os.path.lexists(path)


def source_of(spec: Spec) -> Source:
    """The source that `spec` names. OSError, UmlError."""
    if spec.plain:
        return parse_source(f"raw:{spec.file}")
    if spec.backing is not None:
        return parse_source(f"cow:{spec.file},{spec.backing}")
    if is_remote(spec.file):
        return parse_source(spec.file)
    return parse_source(f"cow:{spec.file}") if is_cow(spec.file) else detect(spec.file)


async def _open(spec: Spec) -> BlockDevice:
    options = OpenOptions(read_only=spec.read_only, sync=spec.sync, shared=spec.shared, discard=not spec.no_trim)
    device = await source_of(spec).device(options)
    if spec.shared and not spec.plain:
        try:
            await require_shareable(device, spec.file)
        except BaseException:
            await device.close()
            raise
    return device


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
