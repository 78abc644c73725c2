"""The source kinds `nbd` and `nbd+unix`: exports of NBD servers, named by their URI.

The URIs are defined in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md:
`nbd://HOST[:PORT]/NAME` and `nbd+unix:///NAME?socket=PATH`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import trio

from umlfs.block import BlockDevice
from umlfs.errors import UsageError
from umlfs.sources import OpenOptions, SourceKind, refuse_options

if TYPE_CHECKING:  # every kind is asked what it makes of a file, and a client takes a while to load
    from umlfs.nbd.client import Connect

DEFAULT_PORT: Final = 10809


class _Kind(SourceKind):
    """One of the two transports."""

    def __init__(self, scheme: str, form: str) -> None:
        self.scheme = scheme
        self._form = form

    options = ("timeout",)

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """Connect to the server. The option `timeout` is how many seconds it may owe a reply (60)."""
        from umlfs.nbd.client import NbdDevice

        uri = f"{self.scheme}:{argument}"
        if options.sync:
            raise UsageError(f"{uri}: a server decides itself when a write is durable", "leave out flag s")
        try:
            connect, export = self._where(uri)
        except ValueError:
            raise UsageError(f"{uri}: not an NBD address", f"write {self._form}") from None
        device = await NbdDevice.connect(uri, connect, export, timeout=_timeout(options))
        device.read_only = device.read_only or options.read_only
        device.can_discard = device.can_discard and options.discard
        return device

    def _where(self, uri: str) -> tuple[Connect, str]:
        """How to connect, and the export's name. ValueError if the URI does not say."""
        raise NotImplementedError


class _Tcp(_Kind):
    def _where(self, uri: str) -> tuple[Connect, str]:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        if not host or parts.username is not None or parts.query or parts.fragment:
            raise ValueError

        async def connect() -> trio.socket.SocketType:
            return (await trio.open_tcp_stream(host, port)).socket

        return connect, unquote(parts.path.removeprefix("/"), errors="strict")


class _Unix(_Kind):
    def _where(self, uri: str) -> tuple[Connect, str]:
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query, strict_parsing=True, errors="strict"))
        path = query.pop("socket", "")
        if not path or parts.netloc or parts.fragment or query:
            raise ValueError

        async def connect() -> trio.socket.SocketType:
            return (await trio.open_unix_socket(path)).socket

        return connect, unquote(parts.path.removeprefix("/"), errors="strict")


def _timeout(options: OpenOptions) -> float:
    from umlfs.nbd.client import TIMEOUT_SECONDS

    refuse_options("an NBD source", options, ("timeout",))
    text = options.extra.get("timeout", str(TIMEOUT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"timeout={text}: not a number of seconds", "such as timeout=60")
    return seconds


tcp = _Tcp("nbd", "nbd://HOST[:PORT]/NAME")
unix = _Unix("nbd+unix", "nbd+unix:///NAME?socket=PATH")
