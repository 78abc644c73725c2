"""SITES.toml: which sites there are."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from umlfs.errors import UsageError
from umlfs.sources import Source, as_source
from umlfs.sources.places import from_directory, placed

HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
SOCKET: Final = re.compile(r"/[^\0]{1,106}\Z|127\.0\.0\.1:[0-9]{1,5}\Z")
"""Where a server listens: 107 bytes are the most that a path may have."""
MIB: Final = 1 << 20


class Mode(StrEnum):
    """How scripts answer."""

    CGI = "cgi"
    """A process for each request, as CGI/1.1 has it."""
    LOOP = "loop"
    """One process, which reads the numbers of requests from /requests/next."""
    HTTP = "http"
    """A web server, which listens at a socket in the guest."""
    FASTCGI = "fastcgi"
    """A FastCGI server, which listens at a socket in the guest."""

    @property
    def by_socket(self) -> bool:
        """Whether its server listens at one."""
        return self in (Mode.HTTP, Mode.FASTCGI)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """One site."""

    name: str
    """The host name that browsers ask for."""
    files: Source
    """What is at /site in the guest."""
    handler: tuple[str, ...]
    """The command that answers."""
    mode: Mode = Mode.CGI
    socket: str = ""
    """Where a server listens in the guest: a path, or 127.0.0.1:PORT."""
    root: Source | str = "hostfs:/"
    user: str = "nobody"
    """The guest's user that it runs as."""
    writable: bool = False
    """Changes in /site go through to its source."""
    memory: int = 96 * MIB
    time_limit: float = 10.0
    """Seconds until an answer must begin, and between its parts."""
    idle: float = 300.0
    """Seconds without a request until the guest is ended."""
    at_once: int = 16
    """Requests that the guest has at one time. Others wait."""
    network: str = "none"


_KNOWN: Final = {
    "files": str,
    "handler": (str, list),
    "mode": str,
    "socket": str,
    "root": str,
    "user": str,
    "writable": bool,
    "memory": int,
    "time-limit": (int, float),
    "idle": (int, float),
    "at-once": int,
    "network": str,
}
"""The words of a site and their types; `memory` is in MiB."""


def load(path: Path) -> list[SiteConfig]:
    """The sites of a file, paths in which are relative to it. UsageError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a file that lists sites") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", "write it as TOML") from None
    sites = table.pop("sites", None)
    if table:
        raise UsageError(f"{path}: unknown table '{next(iter(table))}'", "it has [sites.NAME] tables only")
    if not isinstance(sites, dict) or not sites:
        raise UsageError(f"{path}: no sites", 'give one: [sites."www.example.org"]')
    return [_site(f"{path}: {name}", name, words, path.parent) for name, words in sites.items()]


def _site(what: str, name: str, words: Any, base: Path) -> SiteConfig:
    if not HOST.match(name):
        raise UsageError(f"{what}: not a host name", "write it in small letters, as browsers send it")
    if not isinstance(words, dict):
        raise UsageError(f"{what}: not a table", f'write [sites."{name}"]')
    for word, value in words.items():
        _check(what, word, value)
    for needed in ("files", "handler"):
        if needed not in words:
            raise UsageError(f"{what}: no '{needed}'", f"say {needed} = …")
    changes: dict[str, Any] = {word.replace("-", "_"): value for word, value in words.items()}
    changes["files"] = _source(what, changes["files"], base)
    changes["handler"] = handler_of(what, changes["handler"])
    if "root" in changes:
        changes["root"] = _source(what, changes["root"], base)
    if "mode" in changes:
        changes["mode"] = _mode(what, changes["mode"])
    if "memory" in changes:
        changes["memory"] *= MIB
    config = SiteConfig(name, **changes)
    if config.socket and not SOCKET.match(config.socket):
        raise UsageError(f"{what}: socket = '{config.socket}'", "say /run/site.sock or 127.0.0.1:8000")
    if config.mode.by_socket != bool(config.socket):
        raise UsageError(f"{what}: a server has a 'socket', and nothing else has", "say mode = 'http' or 'fastcgi'")
    return config


def _check(what: str, word: str, value: object) -> None:
    if word not in _KNOWN:
        raise UsageError(f"{what}: unknown word '{word}'", f"known are {', '.join(_KNOWN)}")
    kinds = _KNOWN[word]
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):  # type: ignore[arg-type]
        raise UsageError(f"{what}: {word} = {value!r} is of the wrong type", "look at docs/sites.md")
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < 1 << 40:
        raise UsageError(f"{what}: {word} = {value} is out of range", "give a number above 0")


def handler_of(what: str, value: object) -> tuple[str, ...]:
    """A command, from a list of words or one text. UsageError."""
    try:
        found = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UsageError(f"{what}: handler: {error}", "quote it as a shell would have it") from None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and "\0" not in one for one in found):
        raise UsageError(f"{what}: handler = {value!r} is no command", 'write it like "/site/answer"')
    return tuple(found)


def _mode(what: str, value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise UsageError(f"{what}: mode = '{value}'", f"known are {', '.join(Mode)}") from None


def _source(what: str, word: str, base: Path) -> Source:
    try:
        return as_source(placed(word, from_directory(str(base)))).absolute()
    except UsageError as error:
        raise UsageError(f"{what}: {error.what}", error.way_out) from None


def by_name(sites: list[SiteConfig]) -> Mapping[str, SiteConfig]:
    """The sites by their names."""
    return {site.name: site for site in sites}
