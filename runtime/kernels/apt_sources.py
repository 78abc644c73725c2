"""Where this host's apt has its packages from: the mirrors of Debian, and the keys that sign them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ETC: Final = Path("/etc/apt")
KEYRINGS: Final = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
"""Debian's own keys, as its package debian-archive-keyring has them, on every Debian and in other distributions."""
_MIRROR: Final = re.compile(r"(?:https?|file|mirror\+\w+|ftp|copy):.*/debian/?\Z")

_ONE_LINE: Final = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)\Z")


@dataclass(frozen=True, slots=True)
class AptSource:
    """A place that packages come from."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str = ""
    """A file of keys, or keys in ASCII armour; empty: those that apt trusts for everything."""


def sources(etc: Path = ETC) -> list[AptSource]:
    """All that apt is told of, in its order. Files that cannot be read are left out."""
    found = list(_lines(_read(etc / "sources.list")))
    for path in sorted((etc / "sources.list.d").glob("*")):
        if path.suffix == ".list":
            found += _lines(_read(path))
        elif path.suffix == ".sources":
            found += _stanzas(_read(path))
    return found


def debian(etc: Path = ETC) -> AptSource:
    """The mirror of Debian's main archive that this host uses, with the keys to check it by. Its address is empty
    where apt knows none."""
    for source in sources(etc):
        if _MIRROR.match(source.uri):
            return AptSource(source.uri.rstrip("/"), source.suites, source.signed_by or _keyring())
    return AptSource("", (), _keyring())


def _keyring() -> str:
    return next((str(path) for path in KEYRINGS if path.is_file()), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _lines(text: str) -> Iterator[AptSource]:
    """The form of one line for each."""
    for line in text.splitlines():
        found = _ONE_LINE.match(line.partition("#")[0].strip())
        if found:
            options = dict(word.partition("=")[::2] for word in (found["options"] or "").split())
            yield AptSource(found["uri"], (found["suite"],), options.get("signed-by", ""))


def _stanzas(text: str) -> Iterator[AptSource]:
    """The form of fields (deb822)."""
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            yield AptSource(uri, tuple(fields.get("suites", "").split()), fields.get("signed-by", "").strip())


def _fields(stanza: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t") and name:
            # A lone dot stands for an empty line.
            found[name] += "\n" + ("" if line.strip() == "." else line.strip())
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            found[name] = value.strip()
    return found
