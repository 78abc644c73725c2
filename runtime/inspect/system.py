"""What operating system lies in a tree, by the files that every distribution has."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass, field
from typing import Final

from runtime.inspect.contents import read
from runtime.inspect.paths import resolve, root_of
from runtime.inspect.walk import children
from umlfs.filesystem import Filesystem

_PLACES_MAX: Final = 64
FILE_MAX: Final = 64 * 1024
"""Bytes of a file that are looked at."""


@dataclass(frozen=True, slots=True)
class System:
    """A system that is installed in a tree."""

    distribution: str | None = None
    """As it calls itself: `Debian GNU/Linux 12 (bookworm)`."""
    hostname: str | None = None
    fstab: list[list[str]] = field(default_factory=list)
    """The fields of each line."""
    place: str = "/"
    """Where its root is: a subvolume, perhaps."""


async def system_in(filesystem: Filesystem, kind: str | None = None) -> System | None:
    """The system in `filesystem`, on a btrfs (`kind`) also one in a directory at the top, such as the subvolume
    `@root`; None if there is nothing of one."""
    found = await _system_at(filesystem, b"/")
    if found is not None or kind != "btrfs":
        return found
    with contextlib.suppress(OSError):
        top = [node for node in await children(filesystem, await root_of(filesystem)) if node.is_directory]
        for node in sorted(top, key=lambda node: node.path)[:_PLACES_MAX]:
            found = await _system_at(filesystem, node.path.rstrip(b"/") + b"/")
            if found is not None and found.distribution is not None:
                return found
    return None


async def _system_at(filesystem: Filesystem, place: bytes) -> System | None:
    release = await _text(filesystem, place + b"etc/os-release") or await _text(
        filesystem, place + b"usr/lib/os-release"
    )
    name = (await _text(filesystem, place + b"etc/hostname") or "").strip()
    fstab = _fstab(await _text(filesystem, place + b"etc/fstab") or "")
    if release is None and not name and not fstab:
        return None
    return System(distribution(release or ""), name or None, fstab, os.fsdecode(place.rstrip(b"/") or b"/"))


async def _text(filesystem: Filesystem, path: bytes) -> str | None:
    """The file's text; None if there is no such file, or it cannot be read."""
    try:
        node = await resolve(filesystem, path)
        return (await read(filesystem, node, FILE_MAX)).decode(errors="replace") if node.is_file else None
    except OSError:
        return None


def distribution(release: str) -> str | None:
    """The name in an os-release(5) file."""
    values = {}
    for line in release.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            values[name.strip()] = _unquoted(value.strip())
    return values.get("PRETTY_NAME") or values.get("NAME") or values.get("ID")


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value


def _fstab(text: str) -> list[list[str]]:
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [fields for fields in lines if fields]
