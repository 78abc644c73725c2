"""Making a COW file."""

from __future__ import annotations

import errno
import os
import shlex

from umlfs.blocks.foreign import format_of
from umlfs.blocks.raw import open_file
from umlfs.cow.backing import Backing, absolute, is_remote, look_at, require_other, require_usable
from umlfs.cow.file import fill, identity, peek_header
from umlfs.cow.header import BadHeader, Header
from umlfs.errors import UmlError
from umlfs.host.newfile import new_file


def create(cow: str, backing: str, *, force: bool = False) -> Header:
    """Make a COW file without changes over the file `backing`, as V3; durable on return.

    With `force` it takes the place of a file already there, unless that is in use. FileExistsError without it.
    OSError; UmlError for a backing file that cannot be one, such as another COW file. Nothing is left on an error.
    """
    if not force and os.path.lexists(cow):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), cow)
    found = look_at(backing)
    require_usable(found)
    if image_format := format_of(backing):
        raise UmlError(f"{backing}: a {image_format} image, which is none of the kernel's", "'uml cow create' takes it")
    if peek_header(backing) is not None:
        raise UmlError(
            f"{backing}: is itself a COW file, which a backing file cannot be",
            f"merge it first: uml cow merge {shlex.quote(backing)} NEW",
        )
    if force and os.path.exists(cow):
        _require_free(cow, found)
    return _write(cow, Header(absolute(backing), found.mtime, found.size), force)


def create_remote(cow: str, source: str, size: int, *, mtime: int = 0, force: bool = False) -> Header:
    """Make a COW file over a source that is not a raw image, such as `nbd://host/name` or `qcow2:///path`, of `size`
    bytes; `mtime` in seconds is its file's.

    The kernel cannot open it. Otherwise as `create`.
    """
    assert is_remote(source)
    if not force and os.path.lexists(cow):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), cow)
    if force and os.path.exists(cow):
        open_file(cow).close()  # UmlError if it is in use
    return _write(cow, Header(os.fsencode(source), mtime, size), replace=force)


def _require_free(cow: str, backing: Backing) -> None:
    """UmlError if the file to be replaced is in use, or is the backing file."""
    file = open_file(cow)
    try:
        require_other(cow, backing, identity(file.fileno()))
    finally:
        file.close()


def _write(cow: str, header: Header, replace: bool) -> Header:
    try:
        with new_file(cow, 0o644, replace=replace) as fd:
            fill(fd, header)
    except BadHeader as error:
        raise UmlError(f"{cow}: cannot describe its backing file: {error}") from error
    return header
