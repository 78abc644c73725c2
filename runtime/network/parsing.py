"""`--net` and `--publish`: from what a person writes to networks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeGuard

from runtime.network import allowed, published, user
from runtime.network.contract import Network
from runtime.network.published import Published
from umlfs.errors import UmlError, UsageError
from umlfs.wire.ethernet import VLAN_MAX

if TYPE_CHECKING:  # a command with the internet needs none of this
    from runtime.network.member import Member

NONE: Final = "none"
USER: Final = "user"
KINDS: Final = f"{NONE}, {USER}[:host=yes,allow=CIDR]"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_ANSWERS: Final = {"yes": True, "no": False}


def networks(words: Sequence[str], publish: Iterable[str] = ()) -> list[Network]:
    """The networks of a machine, card by card. UsageError for what cannot be meant."""
    found = [network for word in words if (network := parse(word)) is not None]
    if len(found) < len(words) and len(words) > 1:
        raise UsageError(f"--net {NONE} and others", f"leave out --net {NONE}, or the others")
    found = with_ports(found, publish)
    _check_macs(found)
    return found


def with_ports(found: Sequence[Network], publish: Iterable[str]) -> list[Network]:
    """The cards `found`, the first that can of which has the ports of `--publish`. UsageError."""
    ports = [published.parse(word) for word in publish]
    _check_ports(ports)
    cards = list(found)
    if ports:
        _publish(cards, ports)
    return cards


def parse(word: str) -> Network | None:
    """The network that one word says; None for none. UsageError."""
    kind, options = split(word)
    if kind == NONE:
        refuse_unknown(word, options, ())
        return None
    if kind == USER:
        return _user(word, options)
    return _member(word, kind, options)


def split(word: str) -> tuple[str, dict[str, str]]:
    """The kind and the options of `KIND[:NAME=VALUE,…]`. What is no option of its own belongs to the value before it.
    UsageError."""
    kind, _, rest = word.partition(":")
    options: dict[str, str] = {}
    last = ""
    for part in rest.split(",") if rest else []:
        name, equals, value = part.partition("=")
        if equals:
            if name in options:
                raise UsageError(f"--net {word}: {name}= is there twice", "give it once")
            last, options[name] = name, value
        elif last:
            options[last] += f",{part}"
        else:
            raise UsageError(f"--net {word}: '{part}' is not an option", "options are NAME=VALUE, with commas between")
    return kind, options


def refuse_unknown(word: str, options: Iterable[str], known: Sequence[str]) -> None:
    """UsageError for an option that is not `known`."""
    for name in options:
        if name not in known:
            way_out = f"known are {', '.join(f'{each}=' for each in known)}" if known else "it takes none"
            raise UsageError(f"--net {word}: no option '{name}'", way_out)


def mac(word: str, text: str) -> str:
    """A card's address. UsageError for one that a card cannot have."""
    lower = text.lower()
    if text and not _MAC.match(lower):
        raise UsageError(f"--net {word}: '{text}' is not a MAC address", "for example mac=02:00:00:00:00:01")
    if text and (int(lower[:2], 16) & 1 or lower == "00:00:00:00:00:00"):
        raise UsageError(f"--net {word}: {text} is not the address of one card", "the first byte must be even")
    return lower


def answer(word: str, name: str, text: str) -> bool:
    """Yes or no. UsageError."""
    if text not in _ANSWERS:
        raise UsageError(f"--net {word}: {name}={text}", f"write {name}=yes or {name}=no")
    return _ANSWERS[text]


def _user(word: str, options: dict[str, str]) -> user.User:
    refuse_unknown(word, options, ("host", "mac", "allow"))
    allow = allowed.parse(word, options["allow"]) if "allow" in options else ()
    return user.User(answer(word, "host", options.get("host", "no")), mac(word, options.get("mac", "")), allow)


def _member(word: str, name: str, options: dict[str, str]) -> Member:
    from runtime.network import lab, member

    refuse_unknown(word, options, ("mac", "ip", "vlan", "delay", "loss", "rate"))
    if not lab.NAME_FORM.match(name):
        raise UsageError(f"--net {word}: '{name}' is not a network", f"known are {KINDS}")
    try:
        lab.find(name)
    except UmlError as error:
        raise UsageError(f"--net {word}: {error.what}", f"{error.way_out}, or use one of {KINDS}") from None
    impairment = lab.impairment(word, options)
    address = mac(word, options.get("mac", ""))
    return member.Member(name, address, _ip(word, options), _vlan(word, options), impairment)


def _ip(word: str, options: dict[str, str]) -> str:
    text = options.get("ip", "")
    try:
        return str(ipaddress.IPv4Address(text)) if text else ""
    except ValueError:
        raise UsageError(f"--net {word}: '{text}' is not an IPv4 address", "for example ip=10.9.0.50") from None


def _vlan(word: str, options: dict[str, str]) -> int:
    text = options.get("vlan", "0")
    if not text.isdigit() or int(text) > VLAN_MAX:
        raise UsageError(f"--net {word}: vlan={text}", f"1 to {VLAN_MAX}")
    return int(text)


def _publish(found: list[Network], ports: list[Published]) -> None:
    for number, network in enumerate(found):
        if isinstance(network, user.User) or _leads_out(network):
            found[number] = replace(network, published=ports)
            return
    others = " and ".join(network.described for network in found)
    why = f"{others} publishes no ports" if others else "the machine has no network for it"
    raise UsageError(f"--publish {ports[0]}: {why}", "add --net user")


def _leads_out(network: Network) -> TypeGuard[Member]:
    from runtime.network.member import Member

    return isinstance(network, Member) and network.leads_out


def _check_ports(ports: Sequence[Published]) -> None:
    seen: set[tuple[int, str]] = set()
    for port in ports:
        key = port.host_port, port.protocol
        if key in seen:
            raise UsageError(f"--publish {port}: port {port.host_port} is there twice", "give each once")
        seen.add(key)


def _check_macs(found: Iterable[Network]) -> None:
    seen: set[str] = set()
    for network in found:
        address = getattr(network, "mac", "")
        if address and address in seen:
            raise UsageError(f"--net: the MAC address {address} is there twice", "give each card its own")
        seen.add(address)
