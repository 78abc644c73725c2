"""Defaults for commands, from files: `~/.config/umlfs/config.toml`, and `.umlfs.toml` in this directory or above it.

A table for each command has its options by their long names: `[run]`, `mem = "512M"`, `mount = ["/src=."]`. That of a
command in a group is `["image build"]`. `[machines]` and `[mounts]` name words of a command line, for which
`uml boot NAME` and `uml mount NAME` stand; `[compartments]` names shares of this host, for `--share NAME`.

The project's file counts before the user's, and the command line before both.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umlfs.errors import UmlError, UsageError

PROJECT: Final = ".umlfs.toml"
SIZE_MAX: Final = 1 << 20
NAMED: Final = {"boot": "machines", "mount": "mounts"}
"""The tables of names, by the command that takes them."""
COMPARTMENTS: Final = "compartments"
OWN_ONLY: Final = frozenset({"on-panic", "on-hang"})
"""Options that run programs on this host: a project's file, which may be somebody else's work, sets none."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and the file that it is from."""

    value: Any
    file: Path


Settings = dict[str, dict[str, Setting]]
"""By table and key."""


def user_file() -> Path:
    """Where the user's file is, or would be."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if base.startswith("/") else os.path.expanduser("~/.config")) / "umlfs" / "config.toml"


def files() -> Iterator[Path]:
    """The files that there are, the one that counts first at the end. A project's counts only if nobody but this user
    and root could have written it."""
    if (path := user_file()).is_file():
        yield path
    try:
        here = Path.cwd()
    except OSError:
        return
    for directory in (here, *here.parents):
        path = directory / PROJECT
        if path.is_file():
            if _is_trusted(path):
                yield path
            return


def _is_trusted(path: Path) -> bool:
    for each in (path, path.parent):
        status = each.stat()
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o002 and not sticky):
            return False
    return True


def settings() -> Settings:
    """All that the files say. UsageError for what is no TOML, or no table of options."""
    found: Settings = {}
    for path in files():
        for table, values in _read(path).items():
            if not isinstance(values, Mapping):
                raise UsageError(f"{path}: '{table}' is no table", f"write [{table}] and options below it")
            for key, value in values.items():
                if path.name == PROJECT and key in OWN_ONLY:
                    raise UsageError(f"{path}: a project may not set '{key}'", f"put it into {user_file()}")
                found.setdefault(table, {})[key] = Setting(value, path)
    return found


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(SIZE_MAX).decode())
    except OSError as error:
        raise UmlError(f"{path}: cannot be read: {error.strerror}", "mend it, or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML: {error}", "mend it; docs/configuration.md has examples") from None


def expanded(command: str, words: list[str], found: Settings) -> list[str]:
    """The words of a command line with the first name of a machine or a mount as what it stands for. UsageError."""
    table = found.get(NAMED.get(command, ""), {})
    for place, word in enumerate(words):
        if word == "--":
            break
        if word in table:
            meaning = _words(word, table[word])
            named = command == "boot" and "--name" not in (*words, *meaning)
            return [*words[:place], *(["--name", word] if named else []), *meaning, *words[place + 1 :]]
    return words


def _words(name: str, setting: Setting) -> list[str]:
    if not isinstance(setting.value, list) or not all(isinstance(each, str) for each in setting.value):
        raise UsageError(f"{setting.file}: '{name}' is no list of words", f'write {name} = ["--root", "…"]')
    return setting.value


def compartment(name: str) -> str:
    """`NAME:SHARE` of `[compartments]`. UsageError if there is no such name."""
    table = settings().get(COMPARTMENTS, {})
    if name not in table:
        known = f"there are {', '.join(sorted(table))}" if table else f"name it in {user_file()}: [{COMPARTMENTS}]"
        raise UsageError(f"--share {name}: no such compartment", known)
    value = table[name].value
    if not isinstance(value, str):
        raise UsageError(f"{table[name].file}: '{name}' is no share", f'write {name} = "cpu=2,mem=1G"')
    return f"{name}:{value}"
