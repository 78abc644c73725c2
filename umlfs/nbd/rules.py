"""What each command of an NBD client may ask for."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from umlfs.wire.nbd import Command, CommandFlag


@dataclass(frozen=True, slots=True)
class Rule:
    """What a command allows."""

    flags: int
    modifies: bool = False
    ranged: bool = True
    """Offset and length mean something."""
    beyond: int = errno.EINVAL
    """What it is to reach past the end."""
    payload: bool = False
    """The length is limited by what a message may carry."""


# Plain integers: an operation on a member of an enum costs as much as decoding a request.
FUA: Final = int(CommandFlag.FUA)
DF: Final = int(CommandFlag.DF)
NO_HOLE: Final = int(CommandFlag.NO_HOLE)
FAST_ZERO: Final = int(CommandFlag.FAST_ZERO)
REQ_ONE: Final = int(CommandFlag.REQ_ONE)
RULES: Final = {
    int(Command.READ): Rule(FUA | DF, payload=True),
    int(Command.WRITE): Rule(FUA, modifies=True, beyond=errno.ENOSPC, payload=True),
    int(Command.FLUSH): Rule(FUA, ranged=False),
    int(Command.TRIM): Rule(FUA, modifies=True),
    int(Command.CACHE): Rule(FUA),
    int(Command.WRITE_ZEROES): Rule(FUA | NO_HOLE | FAST_ZERO, modifies=True, beyond=errno.ENOSPC),
    int(Command.BLOCK_STATUS): Rule(FUA | REQ_ONE),
}
"""By command."""
