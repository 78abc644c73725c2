"""Which machine of a network has which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from runtime.network import lab as labs
from runtime.network.lab import Lab
from umlfs.errors import UmlError, UsageError

OWN: Final = (0, labs.BRIDGE, labs.GATEWAY, labs.SERVER, -1)
"""The numbers that the network needs itself."""
SCARCE: Final = 200
"""From this number on addresses that were promised to machines which are away are given to others, too."""


class Addresses:
    """A machine that comes again has the address that it had."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._kept: dict[str, str] = {}
        """Of machines, by their names."""

    def of(self, name: str, wanted: str, used: Sequence[bytes]) -> str:
        """The address of a machine: the one that it wants, if any, else one that is not used. UmlError, UsageError."""
        taken = {str(ipaddress.IPv4Address(address)) for address in used}
        if wanted:
            return self._checked(wanted, taken)
        kept = self._kept.get(name)
        if kept is not None and kept not in taken:
            return kept
        self._kept[name] = found = self._free(taken)
        return found

    def _checked(self, wanted: str, taken: set[str]) -> str:
        lab = self._lab
        if ipaddress.IPv4Address(wanted) not in lab.network:
            raise UsageError(f"ip={wanted}: not in {lab.subnet} of {lab.name}", "choose one of that subnet")
        if wanted in map(lab.address, OWN):
            raise UsageError(f"ip={wanted}: {lab.name} needs that itself", "choose another")
        if wanted in taken:
            raise UmlError(f"ip={wanted}: another machine on {lab.name} has it", "choose another")
        return wanted

    def _free(self, taken: set[str]) -> str:
        promised = set(self._kept.values())
        for number in range(labs.FIRST + 1, self._lab.network.num_addresses - 1):
            address = self._lab.address(number)
            if address not in taken and (address not in promised or number > SCARCE):
                return address
        raise UmlError(f"{self._lab.name}: no address is left", "give it a larger subnet")
