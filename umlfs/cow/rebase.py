"""Giving a COW file another backing file: the same, moved."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import replace

from umlfs.blocks.raw import open_file
from umlfs.cow.backing import absolute, look_at, mismatch, require_other, require_usable, restore_command
from umlfs.cow.file import identity, read_header, rename_backing, require_not_merging, require_whole
from umlfs.cow.header import Header
from umlfs.errors import UmlError


def rebase(cow: str, path: str, *, force_mtime: bool = False) -> Header:
    """Let the COW file name `path`, its backing file at another place, from now on; durable on return.

    Nothing but the header changes, except that an old version is converted to V3. Size and mtime must be
    those in the header; with `force_mtime` the mtime may be another, and the caller vouches for the contents: every
    sector that is not in the COW file is read from there. Returns the new header. OSError, UmlError.
    """
    with ExitStack() as opened:
        file = open_file(cow)
        opened.callback(lambda: file.close())
        header = read_header(file.fileno(), cow)
        require_not_merging(cow, header)
        require_whole(file.fileno(), header, cow)
        require_other(cow, look_at(path), identity(file.fileno()))
        below = open_file(path, read_only=True)
        opened.callback(below.close)
        named = _named(cow, path, header, force_mtime)
        file = rename_backing(file, cow, header, named)
        return named


def _named(cow: str, path: str, header: Header, force_mtime: bool) -> Header:
    """The header with the new backing file, if that can be."""
    found = look_at(path)
    reason = mismatch(header, found)
    if reason and found.size != header.size:
        raise UmlError(f"{path}: is not what {cow} was made over: {reason}", "name the file it was made over")
    if reason and not force_mtime:
        raise UmlError(
            f"{path}: perhaps not what {cow} was made over: {reason}",
            f"if you know that the contents are the same: {restore_command(header, path)}; or --force-mtime, which "
            f"takes any contents: where they differ, all that {shlex.quote(cow)} holds may become worthless",
        )
    require_usable(found)
    return replace(header.as_v3(), backing=absolute(path), mtime=found.mtime)
