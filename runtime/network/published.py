"""Ports of the host that lead into a guest."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError, UsageError
from umlfs.host.socket_holder import holder_of_port

FORM: Final = "[ADDR:]PORT:GUEST[/udp]"
EVERYWHERE: Final = "0.0.0.0"
_WORD: Final = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^:\[\]]+):)?(?P<host>\d{1,5}):(?P<guest>\d{1,5})(?:/(?P<kind>\w+))?\Z"
)
_PRIVILEGED: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that leads to one of the guest."""

    host_port: int
    guest_port: int
    address: str = EVERYWHERE
    """Of the host."""
    protocol: str = "tcp"

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.host_port}:{self.guest_port}/{self.protocol}"


def parse(word: str) -> Published:
    """What `--publish WORD` says. UsageError."""
    found = _WORD.match(word)
    if found is None:
        raise UsageError(f"--publish {word}: not of the form {FORM}", "for example --publish 8080:80")
    protocol = found["kind"] or "tcp"
    if protocol not in ("tcp", "udp"):
        raise UsageError(f"--publish {word}: '{protocol}' is not a protocol", "write /tcp or /udp")
    host, guest = int(found["host"]), int(found["guest"])
    for port in (host, guest):
        if not 0 < port < 65536:
            raise UsageError(f"--publish {word}: {port} is not a port", "ports are 1 to 65535")
    return Published(host, guest, _address(word, found["address"]), protocol)


def _address(word: str, text: str | None) -> str:
    if text is None:
        return EVERYWHERE
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise UsageError(f"--publish {word}: '{text}' is not an address", "give a number, such as 127.0.0.1") from None


def check_free(published: Published) -> None:
    """UmlError if the host's port cannot be had."""
    family = socket.AF_INET6 if ":" in published.address else socket.AF_INET
    kind = socket.SOCK_STREAM if published.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        try:
            probe.bind((published.address, published.host_port))
        except PermissionError:
            way_out = f"choose one from {_first_unprivileged()} on"
            raise UmlError(f"port {published.host_port}: only root may listen on it", way_out) from None
        except OSError as error:
            port = f"{published.address} port {published.host_port}"
            if error.errno == errno.EADDRINUSE:
                who = holder_of_port(published.host_port, published.protocol)
                raise UmlError(f"{port} is taken by {who}", "choose another port") from None
            raise UmlError(f"{port}: {os.strerror(error.errno or 0).lower()}", "choose another port") from None


def _first_unprivileged() -> int:
    try:
        return int(_PRIVILEGED.read_text())
    except (OSError, ValueError):
        return 1024
