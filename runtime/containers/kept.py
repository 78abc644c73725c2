"""What is kept of images: `$XDG_CACHE_HOME/umlfs/containers`.

`layout` is an OCI layout with the images that were fetched, each called by the SHA-256 of its manifest; a layer that
several have is there once. `KEY.tar` is the tree of an image, its layers put on each other. Those used last are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from humfs.archive import describe_image, import_archive
from humfs.export import export_tree
from humfs.losses import Losses
from humfs.volume import create
from runtime.containers import layouts, skopeo
from runtime.containers.reference import Reference
from runtime.host import cache
from runtime.host.scratch import scratch_directory
from umlfs.errors import UmlError
from umlfs.host.newfile import new_file

KEPT: Final = 16
"""So many images, and trees of images, are kept."""
_WAIT: Final = 0.1
"""Seconds between two looks at whether somebody else still fetches."""
_SIZE: Final = 1 << 50


@contextlib.asynccontextmanager
async def fetched(image: Reference, *, layers: bool = False) -> AsyncIterator[tuple[Path, str]]:
    """A layout that has the image, and its name there. It stays for as long as the context lasts. With `layers` they
    are there whole; without, where there is no `tree` of them. UmlError."""
    with _place() as place:
        layout = place / "layout"
        digest = image.digest or f"sha256:{hashlib.sha256(await skopeo.manifest(image)).hexdigest()}"
        exact, name = Reference(image.name, digest=digest), digest.partition(":")[2]
        async with _locked(place, fcntl.LOCK_EX):
            ready = partial(_is_ready, place, layout, name, layers)
            if not await trio.to_thread.run_sync(ready):
                await _fetch(exact, layout, name)
            layouts.keep(layout, name, KEPT)
        async with _locked(place, fcntl.LOCK_SH):
            yield layout, name


def _is_ready(place: Path, layout: Path, name: str, layers: bool) -> bool:
    if not layouts.has(layout, name):
        return False
    try:
        there = not layers and (place / f"{_key(layout, name)}.tar").exists()
    except (UmlError, OSError):
        return False
    return there or layouts.is_whole(layout, name)


async def _fetch(image: Reference, layout: Path, name: str) -> None:
    """Fetch what of the image is not there; all of it if what is there is damaged."""
    for last in (False, True):
        try:
            await skopeo.copy(image, layout, name)
        except UmlError:
            if last or not layouts.is_broken(layout):
                raise
        else:
            if last or await trio.to_thread.run_sync(layouts.is_whole, layout, name):
                return
        shutil.rmtree(layout)


@contextlib.asynccontextmanager
async def tree(path: Path, tag: str | None) -> AsyncIterator[Path]:
    """A tar archive of all layers of the image at `path`, put on each other. It is there when the context begins; who
    opened it may go on. UmlError."""
    with _place() as place:
        key = await trio.to_thread.run_sync(_key, path, tag)
        made = place / f"{key}.tar"
        if made.exists():
            cache.note_use(made)
        else:
            with scratch_directory(place) as scratch:
                await trio.to_thread.run_sync(partial(_flatten, path, tag, scratch / "flat", made))
            cache.prune("containers/*.tar", KEPT)
        yield made


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """The directory of all this; where there is no cache, one that is gone with the context."""
    place = cache.subdirectory("containers")
    if place is None:
        with tempfile.TemporaryDirectory(prefix="umlfs-") as path:
            yield Path(path)
    else:
        yield place


@contextlib.asynccontextmanager
async def _locked(place: Path, how: int) -> AsyncIterator[None]:
    """Who writes the layout is alone with it."""
    fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, cache.MODE_FILE)
    try:
        while True:
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await trio.sleep(_WAIT)
        yield
    finally:
        os.close(fd)


def _key(path: Path, tag: str | None) -> str:
    """Another one for other layers; without digests, for another file too."""
    about = describe_image(path, tag)
    known: list[object] = [list(about.layers)]
    if any(digest is None for _, digest in about.layers):
        found = path.stat()
        known += [str(path.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _flatten(path: Path, tag: str | None, scratch: Path, made: Path) -> None:
    """UmlError for an image that is damaged, or has what the tree could not."""
    losses = Losses()
    create(scratch, _SIZE, durable=False)
    trio.run(lambda: import_archive(scratch, str(path), tag=tag, losses=losses, is_new=True))
    with new_file(str(made), cache.MODE_FILE, replace=True) as fd, open(fd, "wb", closefd=False) as output:
        export_tree(scratch, output, losses)
        output.flush()
        for line in losses.lines():
            raise UmlError(f"{path}: not all of it can be shown: {line}", "see 'uml image convert'")
