"""When to look for the next request oneself, and when to wait to be told of it."""

from __future__ import annotations

from typing import Final

POLL_SECONDS: Final = 100e-6
"""How long to look. A guest that works through files sends its next request well within this time, and finding
it costs a tenth of being woken."""

EXPONENT_MAX: Final = 4
"""A vain attempt in 16 turns costs little, and a guest that becomes quick is noticed soon."""


class Polling:
    """Learns whether looking pays: the more often in a row nothing came, the more rarely it is tried.

    It does not pay with a guest that thinks for longer than `POLL_SECONDS` between requests, nor where other
    processes want the processor. One vain attempt in a row costs nothing yet: it is how every burst of requests ends.
    After that, 1, 3, 7 and at last 15 turns pass without one; a request found makes up for all.
    """

    def __init__(self) -> None:
        self._vain = 0
        """Attempts in a row that found nothing."""
        self._pause = 0
        """Turns left to pass without an attempt."""

    def seconds(self) -> float:
        """How long to look this time; 0 is not at all."""
        if self._pause:
            self._pause -= 1
            return 0.0
        return POLL_SECONDS

    def found(self) -> None:
        """A request came while looking."""
        self._vain = 0

    def missed(self) -> None:
        """None came."""
        self._pause = (1 << self._vain) - 1
        self._vain = min(self._vain + 1, EXPONENT_MAX)
