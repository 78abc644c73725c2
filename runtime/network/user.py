"""`--net user`: the internet as this user has it, by whatever engine is there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from runtime.network import slirp
from runtime.network.contract import Attachment, Place
from runtime.network.published import Published
from umlfs.errors import UmlError


@dataclass(frozen=True, slots=True)
class User:
    """The internet, without root and without a network of the host's being changed."""

    host: bool = False
    """The guest reaches what listens on the host's loopback alone, at the address of its gateway."""
    mac: str = ""
    allow: Sequence[str] = ()
    """Where alone it may go; empty for everywhere."""
    published: Sequence[Published] = ()

    @property
    def described(self) -> str:
        """See `Network`."""
        host = [", with this host's loopback"] if self.host else []
        limits = [f", to {' and '.join(self.allow)} alone"] if self.allow else []
        return "".join(["the internet", *host, *limits, *(f", publishes {each}" for each in self.published)])

    @property
    def remark(self) -> str:
        """See `Network`."""
        return ""

    @contextlib.asynccontextmanager
    async def attached(self, place: Place) -> AsyncIterator[Attachment]:
        """See `Network`."""
        network = slirp.Slirp(self.host, self.mac, self.published, self.allow)
        async with network.attached(place) as attachment:
            yield attachment

    @staticmethod
    def check() -> None:
        """UmlError if this host has no engine for it."""
        slirp.find()


def is_there() -> bool:
    """Whether this host has an engine."""
    try:
        User.check()
    except UmlError:
        return False
    return True
