"""The trees that steps of recipes made: `$XDG_CACHE_HOME/umlfs/recipes/KEY.tar`, those used last."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from humfs.export import export_tree
from humfs.losses import Losses
from runtime.host import cache
from umlfs.host.newfile import new_file

KEPT: Final = 8
_PLACE: Final = "recipes"


def find(key: str) -> Path | None:
    """The tree of this key, if it is kept; it counts as used."""
    place = cache.subdirectory(_PLACE)
    path = place / f"{key}.tar" if place is not None else None
    if path is None or not path.is_file():
        return None
    cache.note_use(path)
    return path


def keep(key: str, tree: Path) -> None:
    """Keep the humfs `tree`, which nobody has open, by this key; not if it has what no archive can hold, or there is
    no room."""
    place = cache.subdirectory(_PLACE)
    if place is None:
        return
    with (
        contextlib.suppress(OSError, _LossyError),
        new_file(str(place / f"{key}.tar"), cache.MODE_FILE, replace=True) as fd,
    ):
        _write(tree, fd)
    cache.prune(f"{_PLACE}/*.tar", KEPT)


def _write(tree: Path, fd: int) -> None:
    losses = Losses()
    with open(fd, "wb", closefd=False) as output:
        export_tree(tree, output, losses)
    if losses:
        raise _LossyError


class _LossyError(Exception):
    """An archive would not be the tree."""
