"""The trees that steps of recipes made: `$XDG_CACHE_HOME/umlfs/recipes/KEY.tar`, those used last."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from humfs.export import Exporter
from humfs.losses import Losses
from humfs.volume import Volume
from runtime.host import cache
from umlfs.host.newfile import new_file

KEPT: Final = 8


def find(key: str) -> Path | None:
    """The tree of this key, if it is kept; it counts as used."""
    place = _place()
    path = place / f"{key}.tar" if place is not None else None
    if path is None or not path.is_file():
        return None
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


def keep(key: str, tree: Path) -> None:
    """Keep the humfs `tree`, which nobody has open, by this key; not if it has what no archive can hold, or there is
    no room."""
    place = _place()
    if place is None:
        return
    with (
        contextlib.suppress(OSError, _LossyError),
        new_file(str(place / f"{key}.tar"), cache.MODE_FILE, replace=True) as fd,
    ):
        _write(tree, fd)
    found = sorted(place.glob("*.tar"), key=lambda path: path.stat().st_atime_ns, reverse=True)
    for path in found[KEPT:]:
        path.unlink(missing_ok=True)


def _write(tree: Path, fd: int) -> None:
    losses = Losses()
    with contextlib.closing(Volume(tree)) as volume, open(fd, "wb", closefd=False) as output:
        Exporter(volume, output, losses).run()
    if losses:
        raise _LossyError


class _LossyError(Exception):
    """An archive would not be the tree."""


def _place() -> Path | None:
    root = cache.directory()
    if root is None:
        return None
    (root / "recipes").mkdir(mode=cache.MODE_DIRECTORY, exist_ok=True)
    return root / "recipes"
