"""What a recipe says: see docs/images.md."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from umlfs.errors import UmlError, UsageError

_MODE_MAX: Final = 0o7777
_KINDS: Final = {str: "a text", bool: "true or false", list: "a list", int: "a number", dict: "a table"}


@dataclass(frozen=True, slots=True)
class File:
    """One that is put into the image."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = ""
    """As chown takes it; root if empty."""


@dataclass(frozen=True, slots=True)
class User:
    """One that the image has."""

    name: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    shell: str = "/bin/sh"
    password: str | None = None
    """Empty for a login without one; None: nobody logs in by password."""
    ssh_key: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """A recipe."""

    suite: str = ""
    """Of Debian or Ubuntu, for mmdebstrap."""
    base: str = ""
    """Any image, in the place of a suite."""
    packages: tuple[str, ...] = ()
    hostname: str = "uml"
    root_password: str | None = None
    ssh_key: str | None = None
    mirrors: tuple[str, ...] = ()
    size: str = ""
    network: bool = False
    """Commands, and the installation of packages into a `base`, reach the network."""
    memory: str = "512M"
    files: tuple[File, ...] = ()
    users: tuple[User, ...] = ()
    run: tuple[str, ...] = ()
    """Commands for the shell, each run as root in a guest of its own."""
    place: Path = field(default=Path(), compare=False)
    """The directory that relative paths are from."""


def read(path: Path) -> Description:
    """The recipe in a file. UsageError for what makes no sense, UmlError for what cannot be read."""
    try:
        text = path.read_bytes().decode()
        return _Table(str(path), tomllib.loads(text)).description(path.parent)
    except OSError as error:
        raise UmlError(f"{error.filename or path}: {error.strerror}", None) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML: {error}", "see 'Recipes' in docs/images.md") from None


class _Table:
    """A table of the file, of which every key has to be asked for."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        self._left = dict(values)

    def description(self, place: Path) -> Description:
        suite, base = self._take("suite", str, ""), self._take("base", str, "")
        if bool(suite) == bool(base):
            raise UsageError(f"{self._name}: give either suite or base", 'such as suite = "bookworm"')
        found = Description(
            suite,
            base,
            self._texts("packages"),
            self._take("hostname", str, "uml"),
            self._take("root_password", str, None),
            self._take("ssh_key", str, None),
            self._texts("mirrors"),
            self._take("size", str, ""),
            self._take("network", bool, False),
            self._take("memory", str, "512M"),
            tuple(each.file(place) for each in self._tables("file")),
            tuple(each.user() for each in self._tables("user")),
            self._texts("run"),
            place,
        )
        self._require_all_taken()
        if base and (found.mirrors or found.root_password is not None or found.ssh_key or found.hostname != "uml"):
            raise UsageError(
                f"{self._name}: mirrors, hostname, root_password and ssh_key are for a suite",
                "write files and commands",
            )
        if base and found.packages and not found.network:
            raise UsageError(f"{self._name}: packages come over the network", "say network = true")
        return found

    def file(self, place: Path) -> File:
        path, mode = self._need("path"), self._take("mode", str, "0644")
        source, text = self._take("source", str, None), self._take("content", str, None)
        owner = self._take("owner", str, "")
        self._require_all_taken()
        if not path.startswith("/") or "\0" in path or ".." in path.split("/") or not path.strip("/"):
            raise UsageError(f"{self._name}: '{path}' is no path from the root", "such as /etc/motd")
        if (source is None) == (text is None):
            raise UsageError(f"{self._name}: {path}: give either content or source", None)
        if not mode.isdigit() or not set(mode) <= set("01234567") or int(mode, 8) > _MODE_MAX:
            raise UsageError(f"{self._name}: {path}: '{mode}' is no mode", 'such as mode = "0644"')
        content = text.encode() if text is not None else (place / Path(str(source)).expanduser()).read_bytes()
        return File(path, content, int(mode, 8), owner)

    def user(self) -> User:
        found = User(
            self._need("name"),
            self._take("uid", int, None),
            self._texts("groups"),
            self._take("shell", str, "/bin/sh"),
            self._take("password", str, None),
            self._take("ssh_key", str, ""),
        )
        self._require_all_taken()
        for name in (found.name, *found.groups):
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name.startswith("-"):
                raise UsageError(f"{self._name}: '{name}' is no name of a user or group", None)
        return found

    def _need(self, key: str) -> str:
        found = self._take(key, str, None)
        if not found:
            raise UsageError(f"{self._name}: {key} is missing", None)
        return str(found)

    def _take(self, key: str, kind: type, default: Any) -> Any:
        found = self._left.pop(key, default)
        if found is not default and (not isinstance(found, kind) or (kind is int and isinstance(found, bool))):
            raise UsageError(f"{self._name}: {key} is {_KINDS[kind]}", None)
        return found

    def _texts(self, key: str) -> tuple[str, ...]:
        found = self._take(key, list, [])
        if not all(isinstance(each, str) for each in found):
            raise UsageError(f"{self._name}: {key} is a list of texts", None)
        return tuple(found)

    def _tables(self, key: str) -> list[_Table]:
        found = self._take(key, list, [])
        if not all(isinstance(each, dict) for each in found):
            raise UsageError(f"{self._name}: {key} is a table: [[{key}]]", None)
        return [_Table(f"{self._name}: {key} {number}", each) for number, each in enumerate(found, 1)]

    def _require_all_taken(self) -> None:
        for key in self._left:
            raise UsageError(f"{self._name}: '{key}' is unknown", "see 'Recipes' in docs/images.md")
