"""What this host knows of names and of the world: for guests that are to know the same."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RESOLVER: Final = Path("/etc/resolv.conf")
ROUTES: Final = Path("/proc/net/ipv6_route")
_EVERYWHERE: Final = "0" * 32
_REJECTS: Final = 0x200
"""Of a route's flags: it leads nowhere."""
SEARCH_MAX: Final = 32


def search_domains() -> list[str]:
    """The domains that the host looks for names in, as its VPN may have said."""
    try:
        lines = RESOLVER.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    for line in lines:
        word, *rest = line.split() or [""]
        if word in ("search", "domain"):
            found = rest
    return [domain for domain in found if _is_domain(domain)][:SEARCH_MAX]


def _is_domain(text: str) -> bool:
    return all(part.replace("-", "").replace("_", "").isalnum() for part in text.strip(".").split(".")) or text == "."


def has_ipv6() -> bool:
    """Whether the host reaches the world by IPv6: it has a default route."""
    try:
        rows = [line.split() for line in ROUTES.read_text().splitlines()]
    except OSError:
        return False
    return any(
        row[0] == _EVERYWHERE and row[1] == "00" and row[9] != "lo" and not int(row[8], 16) & _REJECTS
        for row in rows
        if len(row) == 10
    )
