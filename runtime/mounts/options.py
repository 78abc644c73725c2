"""The words after `-o`: what the host's kernel is to know, and what the source is to know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_KERNEL: Final = frozenset(
    {
        "allow_other",
        "allow_root",
        "async",
        "debug",
        "default_permissions",
        "dev",
        "dirsync",
        "exec",
        "noatime",
        "nodev",
        "noexec",
        "nosuid",
        "suid",
        "sync",
    }
)
_OF_MOUNT: Final = frozenset(
    {
        "auto",
        "defaults",
        "group",
        "noauto",
        "nofail",
        "nouser",
        "owner",
        "relatime",
        "user",
        "users",
        "_netdev",
    }
)
"""What mount(8) and fstab have a use for, and a filesystem has none."""
_OF_MOUNT_PREFIXES: Final = ("x-", "X-", "comment=", "uhelper=", "helper=")

_WORD: Final = re.compile(r"(?:[^,\\]|\\.)+")

SEPARATOR: Final = "\n"
"""Between the values of an option that was given more than once."""


@dataclass(slots=True)
class MountOptions:
    """What `-o` asked for."""

    read_only: bool = False
    writable: bool = False
    """`rw` was said, which what is only read by default needs."""
    kernel: set[str] = field(default_factory=set)
    """Options of libfuse and the host's kernel."""
    by_pyfuse3: bool = False
    """pyfuse3's loop is to answer, and not our own session."""
    source: dict[str, str] = field(default_factory=dict)
    """Options of the source itself."""


def parse(texts: Iterable[str]) -> MountOptions:
    """The options in `texts`, each of them words with commas between, as mount(8) takes them.

    A backslash takes away the meaning of the comma after it. What is unknown here is the source's, which refuses
    what it does not know either.
    """
    options = MountOptions()
    for text in texts:
        for word in split(text):
            _take(options, word)
    return options


def split(text: str) -> list[str]:
    """The words between commas. A backslash takes away the meaning of the comma after it."""
    return [re.sub(r"\\(.)", r"\1", word) for word in _WORD.findall(text)]


def _take(options: MountOptions, word: str) -> None:
    key, _, value = word.partition("=")
    if word in ("ro", "rw"):
        options.read_only, options.writable = word == "ro", word == "rw"
    elif word == "pyfuse3":
        options.by_pyfuse3 = True
    elif word in _KERNEL:
        options.kernel.add(word)
    elif word not in _OF_MOUNT and not word.startswith(_OF_MOUNT_PREFIXES):
        former = options.source.get(key)
        options.source[key] = value if former is None else former + SEPARATOR + value
