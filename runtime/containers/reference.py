"""The names of container images in registries: `[HOST[:PORT]/]NAME[:TAG|@DIGEST]`, as docker writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UsageError

_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME: Final = rf"(?:(?:\[[0-9a-fA-F:]+\]|{_PART})(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST: Final = r"sha256:[0-9a-f]{64}"
_WORD: Final = re.compile(rf"//({_NAME})(?:@({_DIGEST})|:({_TAG}))?(?::(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry."""

    name: str
    """The repository, with the registry's host where one was named."""
    tag: str | None = None
    digest: str | None = None
    """Of its manifest: what a name with one means never changes."""

    def __str__(self) -> str:
        if self.digest is not None:
            return f"docker://{self.name}@{self.digest}"
        return f"docker://{self.name}" + (f":{self.tag}" if self.tag is not None else "")

    @property
    def short(self) -> str:
        """The name that a copy of it goes by."""
        return str(self).removeprefix("docker://")

    @property
    def is_near(self) -> bool:
        """The registry is on this host. Such a one may do without TLS, as for docker."""
        host = self.name.partition("/")[0].rpartition(":")[0] or self.name.partition("/")[0]
        try:
            return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False


def divided(argument: str) -> tuple[str, str | None]:
    """What of `//NAME:TAG:rest` is the image, and what follows it; all of it if that is no name of one."""
    match = _WORD.match(argument)
    if match is None or match[4] is None:
        return argument, None
    return argument[: -len(match[4]) - 1], match[4]


def parse(argument: str) -> Reference:
    """The image that `//NAME:TAG` means. UsageError."""
    match = _WORD.match(argument)
    if match is None or match[4] is not None:
        raise UsageError(f"docker:{argument}: no name of an image", "write docker://NAME:TAG")
    return Reference(match[1], match[3], match[2])
