"""What operating system lies in a tree, by the files that every distribution has."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Final

from runtime.inspect.contents import read
from runtime.inspect.paths import resolve
from umlfs.filesystem import Filesystem

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


async def system_in(filesystem: Filesystem) -> System | None:
    """The system in `filesystem`; None if there is nothing of one."""
    release = await _text(filesystem, b"/etc/os-release") or await _text(filesystem, b"/usr/lib/os-release")
    name = (await _text(filesystem, b"/etc/hostname") or "").strip()
    fstab = _fstab(await _text(filesystem, b"/etc/fstab") or "")
    if release is None and not name and not fstab:
        return None
    return System(distribution(release or ""), name or None, fstab)


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
