"""What a guest makes of its network cards before its first command: scripts, and files for its network's managers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from runtime.guest import cpio
from runtime.host.compiled import compiled, install

RESOLVER: Final = "/etc/resolv.conf"


class Card(NamedTuple):
    """A network card that is up, with its addresses, when the guest's first command starts."""

    kernel_name: str
    """What the kernel calls it: `vec0`."""
    name: str
    """What it is called instead: `eth0`."""
    addresses: Sequence[str] = ()
    """With the lengths of their prefixes: `10.0.2.100/24`."""
    gateways: Sequence[str] = ()
    """Of IPv4 and IPv6; none for a network that leads nowhere."""
    up: bool = True
    """False for a card that is the guest's own matter: it has its name, and no more."""

    @property
    def words(self) -> list[str]:
        """What has `cards.c` set it up."""
        if not self.up:
            return ["name", self.kernel_name, self.name] if self.kernel_name != self.name else []
        addresses = [word for address in self.addresses for word in ("address", address)]
        gateways = [word for gateway in self.gateways for word in ("gateway", gateway)]
        return ["card", self.kernel_name, self.name, *addresses, *gateways]


class GuestNetwork(NamedTuple):
    """All cards of a guest, and whom it asks for names."""

    cards: Sequence[Card] = ()
    servers: Sequence[str] = ()
    search: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.cards)

    @property
    def resolver(self) -> str:
        """The text of resolv.conf; empty for a guest that has nobody to ask."""
        if not self.servers:
            return ""
        search = [f"search {' '.join(self.search)}\n"] if self.search else []
        return "".join([*search, *(f"nameserver {server}\n" for server in self.servers)])

    @property
    def has_gateway(self) -> bool:
        """Whether some card leads out already: the first that does is the default."""
        return any(card.gateways for card in self.cards)

    def with_card(self, card: Card, search: Sequence[str]) -> GuestNetwork:
        """The network with one more card."""
        if self.has_gateway:
            card = card._replace(gateways=())
        domains = [domain for domain in search if domain not in self.search]
        return self._replace(cards=[*self.cards, card], search=[*self.search, *domains])


PROGRAM: Final = "cards"
"""The name of `program` in the guest's directory of ours."""
_SOURCES: Final = [Path(__file__).with_name("cards.c")]
_WHAT: Final = "what sets up the network cards of guests"


def program() -> bytes:
    """The executable of `cards.c`. UmlError if it cannot be compiled. Blocks, half a second the first time."""
    return compiled(PROGRAM, _SOURCES, _WHAT)


def install_program() -> None:
    """Compile it for all users of this installation. UmlError, OSError."""
    install(PROGRAM, _SOURCES, _WHAT)


def setup_script(network: GuestNetwork, here: str, *, overlay: bool) -> str:
    """For the initramfs, where the root is at /root: sets up the cards and, where that changes nothing but an overlay,
    the resolver. A card that cannot be set up ends the boot."""
    if not network:
        return "ip link set lo up\n"
    words = shlex.join(["lo", *(word for card in network.cards for word in card.words)])
    lines = [f'{here}/{PROGRAM} {words} 2>{here}/errors || fail "$(cat {here}/errors)"']
    if overlay and network.resolver:
        target = f"/root{RESOLVER}"
        lines.append(f"[ ! -L {target} ] || rm {target}")
        lines.append(f"[ ! -d /root/etc ] || echo {shlex.quote(network.resolver.rstrip())} >{target}")
    return "".join(f"{line}\n" for line in lines)


def resolver_script(network: GuestNetwork, here: str) -> str:
    """For a root that is written through: its file stays as it is, and ours lies over it while the guest runs."""
    if not network.resolver:
        return ""
    return f"""\
if [ -L {RESOLVER} ]; then
    resolver=$(readlink -f {RESOLVER})
    case $resolver in
    /run/*) mkdir -p "${{resolver%/*}}" && cp {here}/resolv.conf "$resolver" ;;
    *) [ ! -f "$resolver" ] || mount -o bind {here}/resolv.conf "$resolver" ;;
    esac
elif [ -d /etc ]; then
    [ -e {RESOLVER} ] || touch {RESOLVER}
    [ ! -f {RESOLVER} ] || mount -o bind {here}/resolv.conf {RESOLVER}
fi 2>/dev/null
"""


def reconnect_script(network: GuestNetwork, here: str) -> str:
    """Connects every card again that is up: what it goes by was lost, and is there again."""
    words = [word for card in network.cards if card.up for word in card.words]
    return f"{here}/{PROGRAM} again {shlex.join(words)}\n" if words else ""


# What manages networks in the roots of others ---------------------------------------------------


def managers_entries(network: GuestNetwork) -> list[cpio.CpioEntry]:
    """Files below /run that keep what else may look after networks from undoing ours: systemd-networkd and -resolved,
    NetworkManager, ifupdown."""
    files: dict[str, str] = {}
    cards = [card for card in network.cards if card.up]
    if not cards:
        return []
    for card in cards:
        files[f"run/systemd/network/00-{card.name}.network"] = _networkd(network, card)
        files[f"run/systemd/network/00-{card.name}.link"] = (
            f"[Match]\nOriginalName={card.name}\n\n[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=none\n"
        )
        files[f"run/network/ifstate.{card.name}"] = f"{card.name}\n"
    names = "".join(f"interface-name:{card.name};" for card in cards)
    files["run/NetworkManager/conf.d/umlfs.conf"] = f"[main]\ndns=none\n\n[keyfile]\nunmanaged-devices={names}\n"
    files["run/network/ifstate"] = "".join(f"{name}={name}\n" for name in ("lo", *(c.name for c in cards)))
    if network.servers:
        domains = f"Domains={' '.join(network.search)}\n" if network.search else ""
        servers = " ".join(network.servers)
        files["run/systemd/resolved.conf.d/umlfs.conf"] = f"[Resolve]\nDNS={servers}\n{domains}"
    return _entries(files)


def _networkd(network: GuestNetwork, card: Card) -> str:
    lines = ["[Match]", f"Name={card.name}", "", "[Network]", "KeepConfiguration=yes", "LinkLocalAddressing=ipv6"]
    lines += [f"Address={address}" for address in card.addresses]
    lines += [f"Gateway={gateway}" for gateway in card.gateways]
    if any(":" in gateway for gateway in card.gateways):
        lines += ["IPv6AcceptRA=no"]
    lines += [f"DNS={server}" for server in network.servers]
    return "\n".join(lines) + "\n"


def _entries(files: dict[str, str]) -> list[cpio.CpioEntry]:
    return [cpio.file(name.encode(), text.encode(), 0o644) for name, text in files.items()]
