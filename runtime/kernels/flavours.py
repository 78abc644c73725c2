"""What kernels are built like: fragments of a configuration, each option of which says why it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Final

from umlfs.errors import UmlError, UsageError

BASE: Final = "fast"
"""What every other flavour comes on top of."""
FLAVOURS: Final = (BASE, "smp", "debug", "time-travel", "gcov")
_SETTING: Final = re.compile(r"(CONFIG_\w+)=(.+)\Z")
_UNSET: Final = re.compile(r"# (CONFIG_\w+) is not set\Z")


def fragment(name: str) -> str:
    """The text of a flavour. UsageError for one that there is not."""
    if name not in FLAVOURS:
        raise UsageError(f"--flavour {name}: no such flavour", f"there are {', '.join(FLAVOURS)}")
    return resources.files(__package__).joinpath("flavours", f"{name}.config").read_text("utf-8")


def wanted(flavours: Iterable[str], settings: Iterable[str]) -> dict[str, str]:
    """The options of the flavours, then the `settings` of a person (`CONFIG_X=y`): their values, `n` for those that are
    to be off. UsageError."""
    found: dict[str, str] = {}
    for name in flavours:
        found.update(parse(fragment(name)))
    for setting in settings:
        if not _SETTING.match(setting):
            raise UsageError(f"--set {setting}: not an option of a kernel", "write it like CONFIG_KASAN=y")
        found.update(parse(setting))
    return found


def parse(text: str) -> dict[str, str]:
    """The options of a configuration and their values; `n` for one that is off."""
    found = {}
    for line in text.splitlines():
        if match := _SETTING.match(line.strip()):
            found[match[1]] = match[2]
        elif match := _UNSET.match(line.strip()):
            found[match[1]] = "n"
    return found


def rendered(options: Mapping[str, str]) -> str:
    """The options as lines of a configuration."""
    return "".join(f"# {name} is not set\n" if value == "n" else f"{name}={value}\n" for name, value in options.items())


def check(options: Mapping[str, str], made: str) -> None:
    """UmlError if the configuration `made` by the kernel's own tools has not what was wanted.

    They drop, without a word, what depends on something that is off.
    """
    there = parse(made)
    lost = [f"{name}={value}" for name, value in options.items() if there.get(name, "n") != value]
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise UmlError(
            f"this kernel's configuration does not take {shown}",
            "an option that it depends on is off, or it does not have it: --edit shows which",
        )
