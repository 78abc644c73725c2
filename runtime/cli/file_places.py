"""Paths in configuration files, by what options and words of a command take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from runtime.machines import placing
from umlfs.sources.places import Place, placed

_Change = Callable[[str, Place], str]
_BY_NAME: Final[dict[str, _Change]] = {"mounts": placing.mount, "ubds": placing.disk}
_BY_METAVAR: Final[dict[str, _Change]] = {"SRC": placed, "FILE|NAME": placing.kernel}
_FILES: Final = ("FILE", "DIR", "FILE.toml", "SOCKET")
_KERNEL_FILES: Final = ("initrd", "uml_dir", "tty_log_dir")
"""Words of a kernel's command line whose value is a path."""


def change_of(option: click.Parameter) -> _Change | None:
    """What an option's value has of paths, changed; None for one that has none."""
    if option.name in _BY_NAME:
        return _BY_NAME[option.name]
    metavar = str(option.metavar or "")
    if metavar in _BY_METAVAR:
        return _BY_METAVAR[metavar]
    if isinstance(option.type, click.Path) or metavar in _FILES:
        return _whole
    return None


def _whole(path: str, place: Place) -> str:
    return place(path)


def words_placed(words: Sequence[str], command: click.Command, place: Place) -> list[str]:
    """The words of a command line, with their paths changed."""
    options = {name: each for each in command.params if isinstance(each, click.Option) for name in each.opts}
    found: list[str] = []
    value_of: click.Option | None = None
    position = 0
    for word in words:
        name, equals, value = word.partition("=")
        option = options.get(name) if word.startswith("-") else None
        if value_of is not None:
            word, value_of = _changed(word, value_of, place), None
        elif option is not None and equals:
            word = f"{name}={_changed(value, option, place)}"
        elif option is not None:
            value_of = None if option.is_flag or isinstance(option.flag_value, str) else option
        elif not word.startswith("-"):
            word = _argument(word, position, command, place)
            position += 1
        found.append(word)
    return found


def _changed(value: str, option: click.Parameter, place: Place) -> str:
    change = change_of(option)
    return value if change is None else change(value, place)


def _argument(word: str, position: int, command: click.Command, place: Place) -> str:
    if command.name == "mount":
        return (placed, _whole)[min(position, 1)](word, place)
    name, equals, value = word.partition("=")
    if name in _KERNEL_FILES and value:
        return f"{name}={place(value)}"
    if name[:3] in ("con", "ssl") and equals:
        return placing.console(word, place)
    if name.startswith("ubd") and equals:
        return placing.disk(word, place)
    return place(word) if position == 0 and word.endswith(".toml") and not equals else word
