"""The kernel's own words for network cards, `vecN:transport=…`, checked before the boot.

The kernel drops in silence what it does not know, and finds out only when a card comes up what cannot be.
"""

from __future__ import annotations

import fcntl
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.network import filters
from umlfs.errors import UsageError

PAIRS_MAX: Final = 20
"""More overrun the kernel's table."""
_WORD: Final = re.compile(r"vec(\d+):(.*)\Z")
_COMMON: Final = frozenset({"mac", "mtu", "depth", "headroom", "vec", "transport"})
_NAMED: Final = frozenset({"ifname", "ifup", "gro"})
_FILTER: Final = frozenset({"bpffile", "bpfflash"})
_ENDS: Final = frozenset({"src", "dst", "srcport", "dstport"})
_GRE: Final = frozenset({"v6", "rx_key", "tx_key", "sequence", "pin_sequence"})
_L2TP: Final = frozenset(
    {"v6", "rx_session", "tx_session", "rx_cookie", "tx_cookie", "cookie64", "counter", "pin_counter", "udp"}
)
TRANSPORTS: Final[dict[str, frozenset[str]]] = {
    "tap": _NAMED,
    "raw": _NAMED | _FILTER,
    "hybrid": _NAMED | _FILTER,
    "gre": _ENDS | _GRE,
    "l2tpv3": _ENDS | _L2TP,
    "bess": _ENDS,
    "fd": frozenset({"fd"}),
    "vde": frozenset({"vnl", "description", "port", "group", "mode"}),
}
NEEDS_HOST: Final = frozenset({"raw", "hybrid", "gre", "l2tpv3", "vde"})
"""Transports that open something of the host's network, which a jailed kernel has none of."""
FIRST_DESCRIPTOR: Final = 3
"""Those before are the standard streams."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One word, taken apart."""

    unit: int
    transport: str
    options: dict[str, str]


def is_vector(word: str) -> bool:
    """Whether it is such a word."""
    return _WORD.match(word) is not None


def parse(word: str, *, jailed: bool) -> Vector:
    """What the word says. UsageError for what the kernel would drop, or could not do when the card comes up."""
    found = _WORD.match(word)
    assert found is not None
    pairs = [part.partition("=") for part in found[2].split(",")]
    for name, equals, value in pairs:
        if not equals or not name or not value or ("=" in value and name not in ("vnl", filters.OPTION)):
            raise UsageError(
                f"{word}: '{name}{equals}{value}' is not of the form NAME=VALUE", "the kernel would drop it"
            )
    options = {name: value for name, _, value in pairs}
    if len(pairs) > PAIRS_MAX:
        raise UsageError(f"{word}: {len(pairs)} options", f"the kernel has room for {PAIRS_MAX}")
    if len(options) < len(pairs):
        raise UsageError(f"{word}: an option is there twice", "give each once")
    transport = options.get("transport", "")
    if transport not in TRANSPORTS:
        raise UsageError(f"{word}: no transport '{transport}'", f"known are {', '.join(TRANSPORTS)}")
    known = _COMMON | TRANSPORTS[transport]
    for name in options:
        if name not in known:
            near = name.replace("_", "")
            meant = f"did you mean {near}=?" if near in known else f"{transport} takes {', '.join(sorted(known))}"
            raise UsageError(f"{word}: no option '{name}', and the kernel would drop it", meant)
    if jailed and transport in NEEDS_HOST:
        raise UsageError(f"{word}: {transport} needs this host's network, and the kernel is jailed", "add --jail=off")
    _check_card(word, transport, options)
    if filters.OPTION in options:
        filters.check(word, options[filters.OPTION])
    return Vector(int(found[1]), transport, options)


def _check_card(word: str, transport: str, options: dict[str, str]) -> None:
    name = options.get("ifname")
    if transport not in ("tap", "raw", "hybrid"):
        return
    if name is None:
        raise UsageError(f"{word}: no ifname=", "name the host's interface: ifname=tap0")
    if not _is_there(name):
        mend = (
            f"sudo ip tuntap add {name} mode tap user $USER"
            if transport == "tap"
            else "'ip link' lists those there are"
        )
        raise UsageError(f"{word}: this host has no interface {name}", mend)


def _is_there(name: str) -> bool:
    """Whether this process's network has an interface of that name; a mounted /sys may show another's."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def inherited(word: str) -> int:
    """The descriptor of a `transport=fd` word. UsageError unless whoever started this process left it open."""
    return _inherited(word, parse(word, jailed=False).options.get("fd", ""))


def inherited_range(text: str) -> range:
    """The descriptors of `--pass-fd N[-M]`, likewise. UsageError."""
    first, dash, last = text.partition("-")
    word = f"--pass-fd {text}"
    for end in (first, last) if dash else (first,):
        _inherited(word, end)
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise UsageError(f"{word}: the last is before the first", f"write {last}-{first}")
    for number in found:
        _inherited(word, str(number))
    return found


def _inherited(word: str, text: str) -> int:
    way_out = "leave a socket of datagrams open for it; in Python: pass_fds"
    if not text.isdigit() or int(text) < FIRST_DESCRIPTOR:
        raise UsageError(f"{word}: '{text}' is not a descriptor of {FIRST_DESCRIPTOR} or more", way_out)
    number = int(text)
    try:
        # What this process has opened by itself is closed at an exec; what it was given is not.
        is_given = not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except (OSError, OverflowError):
        is_given = False
    if not is_given:
        raise UsageError(f"{word}: descriptor {number} was not given to this command", way_out)
    return number


def can_come_late(vector: Vector, descriptors: Sequence[int]) -> bool:
    """Whether a jailed kernel that inherited `descriptors` can have it after the boot."""
    return vector.transport == "fd" and vector.options.get("fd", "") in map(str, descriptors)


def remark(vector: Vector, *, jailed: bool) -> str:
    """What the person should know of a word that works; empty for nothing."""
    if vector.transport in ("tap", "raw") and vector.options.get("gro", "0") == "0" and not jailed:
        return f"vec{vector.unit}: without gro=1 what comes from this host stalls; add it"
    return ""
