"""An image by its recipe: the base, then one step after the other; what was made before is taken from the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from humfs.archive import import_archive
from humfs.superblock import parse_size
from humfs.volume import create
from runtime.host.scratch import remove_tree, scratch_directory
from runtime.images import build, formats
from runtime.images.convert import Writing, convert
from runtime.images.formats import Format, Image
from runtime.images.output import require_free
from runtime.images.recipe import Recipe, fstab
from runtime.images.recipes import kept
from runtime.images.recipes.description import Description
from runtime.images.recipes.steps import Step, steps
from umlfs.errors import UmlError, UsageError

_VERSION: Final = 1
_SIZE: Final = 1 << 50
_CHUNK: Final = 1 << 20


async def build_by_recipe(
    target: Image,
    about: Description,
    writing: Writing,
    say: build.Say,
    *,
    modules: Path | None = None,
    use_kept: bool = True,
) -> None:
    """Make `target` as the recipe says. Nothing is left of one that fails but the steps that are kept. UsageError,
    UmlError."""
    require_free(target, writing.force)
    todo = list(steps(about, writing.epoch))
    base = await _identity_of_base(target, about, modules, writing.epoch)
    keys = [None] * (len(todo) + 1) if base is None else _keys(base, todo)
    with scratch_directory(target.path.parent) as scratch:
        tree = scratch / "tree"
        first = await _from_kept(keys, tree, say) if use_kept else 0
        if first == 0:
            say("the base")
            await _make_base(target, about, tree, writing, say, modules)
            await _keep(keys[0], tree)
            first = 1
        for step, key in zip(todo[first - 1 :], keys[first:], strict=True):
            say(step.title)
            await step.take(tree)
            await _keep(key, tree)
        size = writing.size or (parse_size(about.size) if about.size else build.SIZE if about.suite else None)
        await convert(Image(tree, Format.HUMFS, shown="the recipe"), target, replace(writing, size=size))


async def _keep(key: str | None, tree: Path) -> None:
    if key is not None:
        await trio.to_thread.run_sync(kept.keep, key, tree)


async def _from_kept(keys: Sequence[str | None], tree: Path, say: build.Say) -> int:
    """Make the tree as the last step left it whose work is kept; how many keys that is, 0 for none."""
    for count in range(len(keys), 0, -1):
        key = keys[count - 1]
        path = kept.find(key) if key is not None else None
        if path is not None and await _is_imported(tree, path):
            say(f"{count} of {len(keys)} steps are kept")
            return count
    return 0


async def _is_imported(tree: Path, path: Path) -> bool:
    """Whether the tree was made of a kept one; nothing of either is left if that is damaged."""
    create(tree, _SIZE, durable=False)
    try:
        await import_archive(tree, str(path), is_new=True)
    except UmlError:
        await trio.to_thread.run_sync(remove_tree, tree)
        await trio.to_thread.run_sync(partial(path.unlink, missing_ok=True))
        return False
    return True


async def _make_base(
    target: Image, about: Description, tree: Path, writing: Writing, say: build.Say, modules: Path | None
) -> None:
    made = Image(tree, Format.HUMFS)
    quiet = Writing(epoch=writing.epoch, strict=writing.strict, warn=writing.warn, progress=writing.progress)
    if not about.suite:
        await convert(formats.source(_base(about)), made, quiet)
        return
    await build.build(made, _recipe(about, modules, writing.epoch), quiet, say, lies_on=target.format)


def _recipe(about: Description, modules: Path | None, epoch: int | None) -> Recipe:
    return Recipe(
        about.suite,
        include=about.packages,
        hostname=about.hostname,
        root_password=about.root_password,
        ssh_key=about.ssh_key,
        mirrors=about.mirrors,
        modules=modules,
        epoch=epoch,
    )


def _base(about: Description) -> str:
    """The word of the base, its path from where the recipe lies."""
    from umlfs.sources.places import from_directory, placed

    return placed(about.base, from_directory(str(about.place)))


async def _identity_of_base(target: Image, about: Description, modules: Path | None, epoch: int | None) -> str | None:
    """What the base is known by; None for one that nothing is known by, of which nothing is kept."""
    if not about.suite:
        return await _identity(_base(about))
    made = _recipe(about, modules, epoch)
    return repr((made, fstab(target.format), modules is not None and os.stat(modules).st_mtime_ns))


def _keys(base: str, todo: list[Step]) -> list[str]:
    """What the tree after the base, and after each step, is known by."""
    key = hashlib.sha256(repr((_VERSION, base)).encode()).hexdigest()
    keys = [key]
    for step in todo:
        key = hashlib.sha256(f"{key} {step.identity}".encode()).hexdigest()
        keys.append(key)
    return keys


async def _identity(word: str) -> str | None:
    """The contents of an image that is a base. None for a directory, which may change at any time, and for a disk that
    may lie over others."""
    image = formats.source(word)
    if image.reference:
        from runtime.containers import reference, skopeo

        wanted = reference.parse(f"//{image.reference}")
        return wanted.digest or hashlib.sha256(await skopeo.manifest(wanted)).hexdigest()
    if str(image.path) == formats.STANDARD:
        raise UsageError("a base cannot be standard input", "name a file")
    if not image.path.is_file() or (image.format.is_disk and image.format is not Format.RAW):
        return None
    return f"{word.rpartition(str(image.path))[2]} {await trio.to_thread.run_sync(partial(_digest, image.path))}"


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while data := file.read(_CHUNK):
                found.update(data)
    except OSError as error:
        raise UmlError(f"{path}: {error.strerror}", None) from None
    return found.hexdigest()
