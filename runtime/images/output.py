"""Where an image that is being made is until it is complete: nobody sees half of one, nor is half of one left.

A file has no name until it is complete (`umlfs.host.newfile`). A directory lies in a hidden one beside its place;
should this process be killed, a shell that stands by removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.host.scratch import scratch_directory
from runtime.images.formats import Format, Image, source
from umlfs.blocks.raw import open_file
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import new_file

_REPLACEABLE: Final = frozenset({Format.HUMFS, Format.OCI})
"""Directories that --force removes: what is surely an image, not somebody's files."""


def require_free(image: Image, force: bool) -> None:
    """Refuse a destination that is there: any without `force`, and with it what it would be a pity to lose.

    UsageError; UmlError for an image that is in use.
    """
    path = image.path
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no directory {path.parent}", "make it first")
    if not os.path.lexists(path):
        return
    if not force:
        raise UsageError(f"{path}: exists", "name a new one, or say --force to replace it")
    if path.is_dir():
        if source(str(path)).format not in _REPLACEABLE:
            raise UsageError(f"{path}: a directory that is no image", "remove it yourself, or name a new one")
    elif not path.is_file():
        raise UsageError(f"{path}: not a regular file", "name a new one")
    else:
        open_file(path).close()


@contextlib.contextmanager
def output_file(path: Path, *, force: bool, mode: int = 0o644) -> Iterator[int]:
    """The descriptor of a new file, to be filled; it is durable and at `path` when the block ends."""
    try:
        with new_file(str(path), mode, replace=force) as fd:
            yield fd
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", None) from error


@contextlib.contextmanager
def output_directory(path: Path, *, force: bool) -> Iterator[Path]:
    """The path of a directory that is to be made and filled; what is there then goes to `path` when the block ends."""
    with scratch_directory(path.parent) as scratch:
        made = scratch / "new"
        try:
            yield made
        except OSError as error:
            raise UmlError(f"{path}: {error.strerror}", None) from error
        if force and path.is_dir() and not path.is_symlink():
            os.rename(path, scratch / "old")
        os.rename(made, path)
